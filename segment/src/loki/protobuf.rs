//! The push as protobuf: `logproto.PushRequest`, uncompressed.

use super::{Entry, OpenStream, Writer, label_text};
use crate::ingest::Issue;
use crate::otlp::wire::{Fields, Wire, WireFault};

/// Reads `body` into `writer`.
pub(super) fn read(body: &[u8], writer: &mut Writer) -> Result<(), Issue> {
    let mut fields = Fields::of(body);
    let mut index = 0;
    loop {
        let wrong = |fault: WireFault| Issue { path: format!("streams[{index}]"), reason: fault.to_string() };
        let Some((number, wire)) = fields.next().map_err(wrong)? else { return Ok(()) };
        if number != 1 {
            continue;
        }
        read_stream(wire.bytes().map_err(wrong)?, index, writer)?;
        index += 1;
    }
}

fn read_stream(message: &[u8], index: usize, writer: &mut Writer) -> Result<(), Issue> {
    let place = || format!("streams[{index}]");
    let wrong = |fault: WireFault| Issue { path: place(), reason: fault.to_string() };
    let mut labels = "";
    let mut fields = Fields::of(message);
    while let Some((number, wire)) = fields.next().map_err(wrong)? {
        if number == 1 {
            labels = wire.text().map_err(wrong)?;
        }
    }
    let labels = label_text::parse(labels).map_err(|reason| Issue { path: place(), reason })?;
    let stream = writer.begin(labels);
    let mut fields = Fields::of(message);
    while let Some((number, wire)) = fields.next().map_err(wrong)? {
        if number == 2 {
            let read = wire.bytes().and_then(|entry| read_entry(entry, &stream, writer));
            read.map_err(wrong)?;
        }
    }
    writer.end(stream);
    Ok(())
}

fn read_entry(message: &[u8], stream: &OpenStream, writer: &mut Writer) -> Result<(), WireFault> {
    let (mut time_ns, mut line, mut metadata) = (0, "", Vec::new());
    let mut fields = Fields::of(message);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => time_ns = read_time(wire.bytes()?)?,
            2 => line = wire.text()?,
            3 => metadata.push(read_pair(wire.bytes()?)?),
            _ => {}
        }
    }
    writer.entry(stream, &Entry { time_ns, line, metadata: &metadata });
    Ok(())
}

/// `google.protobuf.Timestamp`; times that nanoseconds cannot say become the nearest that they can.
fn read_time(message: &[u8]) -> Result<i64, WireFault> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut fields = Fields::of(message);
    while let Some((number, wire)) = fields.next()? {
        match (number, wire) {
            (1, Wire::Varint(value)) => seconds = value as i64,
            (2, Wire::Varint(value)) => nanos = i64::from(value as i32),
            _ => {}
        }
    }
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

fn read_pair(message: &[u8]) -> Result<(&str, &str), WireFault> {
    let (mut name, mut value) = ("", "");
    let mut fields = Fields::of(message);
    while let Some((number, wire)) = fields.next()? {
        match number {
            1 => name = wire.text()?,
            2 => value = wire.text()?,
            _ => {}
        }
    }
    Ok((name, value))
}
