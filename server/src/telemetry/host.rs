//! The machine's metrics, named by OpenTelemetry's semantic conventions for systems.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use parking_lot::Mutex;
use sysinfo::{Disks, Networks, System};
use tidemill_types::ErrorKind;

use crate::error::{Error, Result};

/// This machine's name.
pub fn name() -> String {
    System::host_name().unwrap_or_else(|_| "unknown".to_owned())
}

/// What describes this machine.
pub fn resource() -> Resource {
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("host.name", name()),
            KeyValue::new("host.arch", System::cpu_arch()),
            KeyValue::new("os.type", std::env::consts::OS),
        ])
        .build()
}

struct Machine {
    system: System,
    networks: Networks,
    disks: Disks,
}

/// Adds the machine's instruments to `provider`.
///
/// # Errors
/// `Unavailable` on a system that tells nothing of itself.
pub fn observe(provider: &SdkMeterProvider) -> Result<()> {
    let fail = |error: sysinfo::Error| Error::caused(ErrorKind::Unavailable, "looking at this machine", error);
    let mut machine = Machine {
        system: System::new().map_err(fail)?,
        networks: Networks::new_with_refreshed_list().map_err(fail)?,
        disks: Disks::new_with_refreshed_list().map_err(fail)?,
    };
    // A share of time is one since the last look, so there has to be a first.
    machine.system.refresh_cpu_usage();
    let machine = Arc::new(Mutex::new(machine));
    let meter = provider.meter("tidemill.host");

    let it = machine.clone();
    let _cpu = meter
        .f64_observable_gauge("system.cpu.utilization")
        .with_unit("1")
        .with_callback(move |observer| {
            let system = &mut it.lock().system;
            system.refresh_cpu_usage();
            for (number, cpu) in (0_i64..).zip(system.cpus()) {
                observer.observe(f64::from(cpu.usage()) / 100.0, &[KeyValue::new("cpu.logical_number", number)]);
            }
        })
        .build();
    let it = machine.clone();
    let _memory = meter
        .i64_observable_up_down_counter("system.memory.usage")
        .with_unit("By")
        .with_callback(move |observer| {
            let system = &mut it.lock().system;
            system.refresh_memory();
            for (state, bytes) in [("used", system.used_memory()), ("free", system.free_memory())] {
                observer.observe(signed(bytes), &[KeyValue::new("system.memory.state", state)]);
            }
        })
        .build();
    let it = machine.clone();
    let _network = meter
        .u64_observable_counter("system.network.io")
        .with_unit("By")
        .with_callback(move |observer| {
            let networks = &mut it.lock().networks;
            networks.refresh(true);
            for (interface, data) in networks.iter() {
                for (direction, bytes) in [("receive", data.total_received()), ("transmit", data.total_transmitted())] {
                    let interface = KeyValue::new("network.interface.name", interface.to_string_lossy().into_owned());
                    observer.observe(bytes, &[interface, KeyValue::new("network.io.direction", direction)]);
                }
            }
        })
        .build();
    let _disk = meter
        .i64_observable_up_down_counter("system.filesystem.usage")
        .with_unit("By")
        .with_callback(move |observer| {
            let disks = &mut machine.lock().disks;
            disks.refresh(true);
            for disk in disks.iter() {
                let free = disk.available_space();
                for (state, bytes) in [("used", disk.total_space().saturating_sub(free)), ("free", free)] {
                    let point = KeyValue::new("system.filesystem.mountpoint", disk.mount_point().display().to_string());
                    observer.observe(signed(bytes), &[point, KeyValue::new("system.filesystem.state", state)]);
                }
            }
        })
        .build();
    Ok(())
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
