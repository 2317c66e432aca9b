//! How many records a CPU-second encodes, from uncompressed OTLP bytes in memory to level 0 segments.
//!
//! `cargo run --release -p tidemill-segment --example encode_throughput -- FOLDER [REPEATS]` reads `logs_*`, `traces_*` and `metrics_*` of
//! FOLDER (OTLP protobuf, gzip) and encodes each signal REPEATS times over in one bundle.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::io::Read;
use std::path::Path;

use tidemill_segment::ingest::{BundleEncoder, IngestOptions, InputDescription, InputFormat};
use tidemill_types::{Signal, TimestampNs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("name a folder of OTLP files")?;
    let repeats: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    for signal in Signal::ALL {
        let bytes = read_all(Path::new(&folder), signal)?;
        let before = cpu_seconds()?;
        let options =
            IngestOptions { signal, promote: Vec::new(), spool: std::env::temp_dir(), memory_bytes: 128 << 20 };
        let mut encoder = BundleEncoder::new(options)?;
        let input = InputDescription {
            label: "memory".to_owned(),
            format: Some(InputFormat::OtlpProtobuf),
            arrival: TimestampNs(1_700_000_000_000_000_000),
        };
        let mut records = 0;
        for _ in 0..repeats {
            let mut reader = std::io::Cursor::new(&bytes[..]);
            records += encoder.read_input(&input, &mut reader)?.accepted;
        }
        let drafts = encoder.finish()?;
        let seconds = cpu_seconds()? - before;
        let stored: u64 = drafts.iter().map(|draft| draft.bytes).sum();
        println!(
            "{signal}: {records} records, {:.2} CPU-s, {:.0} records/CPU-s, {:.0} MB/CPU-s in, {:.1} bytes/record stored",
            seconds,
            records as f64 / seconds,
            (bytes.len() * repeats) as f64 / seconds / 1e6,
            stored as f64 / records as f64,
        );
    }
    Ok(())
}

fn read_all(folder: &Path, signal: Signal) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut paths =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, std::io::Error>>()?;
    paths.sort();
    let mut bytes = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(signal.as_str()) {
            flate2::read::MultiGzDecoder::new(std::fs::File::open(&path)?).read_to_end(&mut bytes)?;
        }
    }
    Ok(bytes)
}

/// User and system time of this process, by Linux's `/proc/self/stat` in ticks of 10 ms.
fn cpu_seconds() -> Result<f64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = text.rsplit(") ").next().ok_or("no process name")?;
    let ticks: Vec<u64> = after_name.split(' ').skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<u64>() as f64 / 100.0)
}
