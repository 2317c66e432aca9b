//! The encoder of one bundle: the sink behind the walker, and its open partitions.

use std::io::{Read, Seek};

use tidemill_types::{Day, Signal, TimestampNs};

use super::days::Days;
use super::identity::SeriesIds;
use super::partition::{ClosedPartition, CoreColumns, Partition, ScopeKeys};
use super::tables::{push_attributes, push_count};
use super::time::{ChosenTime, choose_time};
use super::{IngestOptions, InputDescription, InputReport, Issue, REPORTED_ISSUES};
use crate::draft::DraftSegment;
use crate::error::{Error, Result};
use crate::footer::input_name;
use crate::identities::{LISTED_IDENTITIES, ListedIdentity, encode_identities};
use crate::input::{StoredInput, walk_input};
use crate::otlp::logs::LogRow;
use crate::otlp::metrics::{MetricRow, PointRow};
use crate::otlp::spans::SpanRow;
use crate::otlp::stream::End;
use crate::otlp::{Frame, ResourceRow, Sink};
use crate::write::ROW_GROUP_ROWS;

/// A bundle has at most this many partitions open; the one that was used longest ago is closed for another, unless the input jumps
/// between more days than that: then it is read again for the days that are left.
const OPEN_PARTITIONS: usize = 64;
/// No setting makes a bundle buffer more: text is addressed by 31 bits, and JSON escapes may make six bytes of one.
const MEMORY_LIMIT_BYTES: usize = 192 << 20;
/// What a row's resource, scope and metric may have without being charged to the row: they are stored once in memory, but Parquet
/// writes them out for every row.
const SHARED_FREE_BYTES: usize = 1 << 10;

/// Turns the inputs of one bundle into level 0 segments.
pub struct BundleEncoder {
    options: IngestOptions,
    keys: ScopeKeys,
    partitions: Vec<Partition>,
    closed: Vec<ClosedPartition>,
    /// Names of all inputs so far.
    inputs: Vec<String>,
    identities: Vec<ListedIdentity>,
    /// Where the last row went.
    last_partition: usize,
    buffered_bytes: usize,
    rows: u64,
    place: Place,
    arrival: TimestampNs,
    days: Days,
    report: InputReport,
}

/// An input that can be read once more from its start.
pub trait Rereadable: Read + Seek {}

impl<T: Read + Seek> Rereadable for T {}

/// What the walk currently stands in. A stamp changes with its resource, scope or metric, so that a partition knows whether the table
/// entries it last used still hold.
#[derive(Default)]
struct Place {
    stamp: u64,
    resource_stamp: u64,
    scope_stamp: u64,
    metric_stamp: u64,
    /// Bytes that are equal when the resources are.
    resource_identity: Vec<u8>,
    scope_identity: Vec<u8>,
    /// Bytes charged to each row for what it shares with others.
    charge: usize,
    series: SeriesIds,
}

impl Place {
    fn shared_charge(&self, metric_bytes: usize) -> usize {
        let parts = [self.resource_identity.len(), self.scope_identity.len(), metric_bytes];
        parts.into_iter().map(|bytes| bytes.saturating_sub(SHARED_FREE_BYTES)).sum()
    }
}

impl std::fmt::Debug for BundleEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { options, rows, .. } = self;
        f.debug_struct("BundleEncoder").field("options", options).field("rows", rows).finish_non_exhaustive()
    }
}

impl BundleEncoder {
    /// An encoder without rows.
    ///
    /// # Errors
    /// None yet; the options are taken as they are.
    pub fn new(mut options: IngestOptions) -> Result<Self> {
        options.memory_bytes = options.memory_bytes.min(MEMORY_LIMIT_BYTES);
        Ok(Self {
            options,
            keys: ScopeKeys::default(),
            partitions: Vec::new(),
            closed: Vec::new(),
            inputs: Vec::new(),
            identities: Vec::new(),
            last_partition: 0,
            buffered_bytes: 0,
            rows: 0,
            place: Place::default(),
            arrival: TimestampNs(0),
            days: Days::default(),
            report: InputReport::default(),
        })
    }

    /// Adds one input, as stored: plain, gzip or zstd, recognized by its first bytes.
    ///
    /// # Errors
    /// Only when the reader or the spool fails; what is wrong with the input is in the report. After an error the encoder holds a part of
    /// the input and must be dropped.
    pub fn read_input(&mut self, input: &InputDescription, reader: &mut dyn Rereadable) -> Result<InputReport> {
        self.report = InputReport::default();
        self.arrival = input.arrival;
        self.days = Days::default();
        self.partitions.iter_mut().for_each(|partition| partition.input_rows = 0);
        self.inputs.push(input_name(&input.label));
        self.walk(input, reader)?;
        while self.days.has_left() {
            while !self.partitions.is_empty() {
                self.close_oldest()?;
            }
            self.days.take_next(OPEN_PARTITIONS);
            reader.rewind().map_err(|source| Error::ReadInput { label: input.label.clone(), source })?;
            let first = std::mem::take(&mut self.report);
            self.walk(input, reader)?;
            // What is wrong with the input was told the first time.
            let InputReport { accepted, times_replaced, .. } = std::mem::replace(&mut self.report, first);
            self.report.accepted += accepted;
            self.report.times_replaced += times_replaced;
        }
        Ok(std::mem::take(&mut self.report))
    }

    fn walk(&mut self, input: &InputDescription, reader: &mut dyn Read) -> Result<()> {
        let fail = |source| Error::ReadInput { label: input.label.clone(), source };
        let stored = StoredInput::open(reader).map_err(fail)?;
        let meter = stored.meter();
        let options = self.options.clone();
        let end = walk_input(&options, input, stored, self)?;
        if let Some(error) = meter.take_error() {
            return Err(fail(error));
        }
        if let End::Failed(problem) = end {
            self.report.failure = Some(problem);
        } else if meter.is_empty() {
            self.report.failure = Some("the object is empty".to_owned());
        }
        Ok(())
    }

    /// Notes what the inputs are known by, so that a rebuilt catalog knows them too. One segment of the bundle lists them.
    pub fn note_identities(&mut self, identities: impl IntoIterator<Item = ListedIdentity>) {
        let left = LISTED_IDENTITIES.saturating_sub(self.identities.len());
        self.identities.extend(identities.into_iter().take(left));
    }

    /// Ends the bundle.
    ///
    /// # Errors
    /// When a segment cannot be written.
    pub fn finish(mut self) -> Result<Vec<DraftSegment>> {
        for partition in std::mem::take(&mut self.partitions) {
            let closed = partition.close(&self.options.spool, &self.keys, &self.options.promote)?;
            self.closed.extend(closed);
        }
        // Retention reaches the latest day last.
        let latest = self.closed.iter_mut().max_by_key(|closed| closed.day());
        if let Some(latest) = latest.filter(|_| !self.identities.is_empty()) {
            latest.list_identities(&encode_identities(self.identities))?;
        }
        let outputs = self.closed.len() as u32;
        let numbered = self.closed.into_iter().zip(0..);
        numbered.map(|(closed, ordinal)| closed.finish(&self.inputs, outputs, ordinal)).collect()
    }

    /// Files a row: finds its partition, makes room, stores what all signals share. `None` for a row that is left for another time, or
    /// was filed before.
    #[inline]
    fn file_row(&mut self, frame: Frame<'_, '_>, time: ChosenTime, size: usize) -> Result<Option<(usize, u32)>> {
        let Some(place) = self.partition_of(time.time.day())? else { return Ok(None) };
        let partition = &mut self.partitions[place];
        self.rows += 1;
        partition.last_used = self.rows;
        partition.input_rows += 1;
        if partition.current.resource_stamp != self.place.resource_stamp {
            let (entry, service) =
                partition.resources.entry(frame.resource, &self.place.resource_identity, &mut self.keys[1]);
            partition.current.resource = entry;
            partition.current.resource_stamp = self.place.resource_stamp;
            partition.note_service(&service);
        }
        if partition.current.scope_stamp != self.place.scope_stamp {
            let entry = partition.scopes.entry(frame.scope, &self.place.scope_identity, &mut self.keys[2]);
            partition.current.scope = entry;
            partition.current.scope_stamp = self.place.scope_stamp;
        }
        let charged = size + self.place.charge;
        let row = partition.push_shared(time, self.arrival, charged);
        self.buffered_bytes += charged;
        self.report.accepted += 1;
        self.report.times_replaced += u64::from(time.original.is_some());
        Ok(Some((place, row)))
    }

    #[inline]
    fn partition_of(&mut self, day: Day) -> Result<Option<usize>> {
        if self.days.is_again() && !self.days.takes_again(day) {
            return Ok(None);
        }
        let ingest_day = self.arrival.day();
        if let Some(last) = self.partitions.get(self.last_partition)
            && last.day == day
            && last.ingest_day == ingest_day
        {
            if last.buffered_rows() >= ROW_GROUP_ROWS || self.buffered_bytes >= self.options.memory_bytes {
                self.make_room()?;
            }
            return Ok(Some(self.last_partition));
        }
        self.find_partition(day, ingest_day)
    }

    #[inline(never)]
    fn find_partition(&mut self, day: Day, ingest_day: Day) -> Result<Option<usize>> {
        let found =
            self.partitions.iter().position(|partition| partition.day == day && partition.ingest_day == ingest_day);
        self.last_partition = match found {
            Some(place) => place,
            None => {
                if !self.days.may_open(day, self.partitions.len() >= OPEN_PARTITIONS) {
                    return Ok(None);
                }
                if self.partitions.len() >= OPEN_PARTITIONS {
                    self.close_oldest()?;
                }
                self.partitions.push(Partition::new(self.options.signal, day, ingest_day));
                self.partitions.len() - 1
            }
        };
        if self.partitions[self.last_partition].buffered_rows() >= ROW_GROUP_ROWS
            || self.buffered_bytes >= self.options.memory_bytes
        {
            self.make_room()?;
        }
        Ok(Some(self.last_partition))
    }

    /// Writes the row group of the last partition when that is full, else of the largest until half of the memory is free.
    #[inline(never)]
    fn make_room(&mut self) -> Result<()> {
        if self.partitions[self.last_partition].buffered_rows() >= ROW_GROUP_ROWS {
            self.write_row_group(self.last_partition)?;
        }
        self.count_buffered();
        if self.buffered_bytes < self.options.memory_bytes {
            return Ok(());
        }
        while self.buffered_bytes > self.options.memory_bytes / 2 {
            let largest = (0..self.partitions.len()).max_by_key(|place| self.partitions[*place].buffered_bytes());
            let Some(largest) = largest.filter(|place| self.partitions[*place].buffered_rows() > 0) else { break };
            self.write_row_group(largest)?;
            self.count_buffered();
        }
        Ok(())
    }

    fn count_buffered(&mut self) {
        self.buffered_bytes = self.partitions.iter().map(Partition::buffered_bytes).sum();
    }

    fn write_row_group(&mut self, place: usize) -> Result<()> {
        self.partitions[place].write_row_group(&self.options.spool, &self.keys, &self.options.promote)
    }

    fn close_oldest(&mut self) -> Result<()> {
        let oldest = (0..self.partitions.len()).min_by_key(|place| self.partitions[*place].last_used);
        if let Some(place) = oldest {
            let partition = self.partitions.swap_remove(place);
            if partition.ingest_day == self.arrival.day() {
                self.days.note_closed(partition.day, partition.input_rows);
            }
            let closed = partition.close(&self.options.spool, &self.keys, &self.options.promote)?;
            self.closed.extend(closed);
            self.count_buffered();
        }
        Ok(())
    }
}

impl Sink for BundleEncoder {
    fn enter_resource(&mut self, resource: &ResourceRow<'_>) {
        self.place.stamp += 1;
        self.place.resource_stamp = self.place.stamp;
        write_identity(&mut self.place.resource_identity, resource.raw, resource.schema_url);
    }

    fn enter_scope(&mut self, frame: Frame<'_, '_>) {
        self.place.stamp += 1;
        self.place.scope_stamp = self.place.stamp;
        write_identity(&mut self.place.scope_identity, frame.scope.raw, frame.scope.schema_url);
        self.place.charge = self.place.shared_charge(0);
        if self.options.signal == Signal::Metrics {
            self.place.series.enter_scope(&self.place.resource_identity, &self.place.scope_identity);
        }
    }

    fn enter_metric(&mut self, _: Frame<'_, '_>, metric: &MetricRow<'_>) {
        self.place.stamp += 1;
        self.place.metric_stamp = self.place.stamp;
        self.place.charge = self.place.shared_charge(metric.described_bytes());
        self.place.series.enter_metric(metric);
    }

    fn log(&mut self, frame: Frame<'_, '_>, log: &LogRow<'_>) -> Result<()> {
        let time = choose_time(log.time, log.observed_time, self.arrival);
        let Some((place, row)) = self.file_row(frame, time, log.size)? else { return Ok(()) };
        let partition = &mut self.partitions[place];
        push_count(&mut partition.dropped, row, log.dropped);
        push_attributes(&mut partition.attributes, &mut self.keys[0], row, &log.attributes);
        if let CoreColumns::Logs(core) = &mut partition.core {
            core.push(row, log);
        }
        Ok(())
    }

    fn point(&mut self, frame: Frame<'_, '_>, metric: &MetricRow<'_>, point: &PointRow<'_>) -> Result<()> {
        let time = choose_time(point.time, 0, self.arrival);
        let Some((place, row)) = self.file_row(frame, time, point.size)? else { return Ok(()) };
        let series = self.place.series.of(frame, metric, point);
        let partition = &mut self.partitions[place];
        push_attributes(&mut partition.attributes, &mut self.keys[0], row, &point.attributes);
        if let CoreColumns::Points(core) = &mut partition.core {
            if partition.current.metric_stamp != self.place.metric_stamp {
                partition.current.metric = core.metric(metric);
                partition.current.metric_stamp = self.place.metric_stamp;
            }
            core.push(row, partition.current.metric, &series, point);
        }
        Ok(())
    }

    fn span(&mut self, frame: Frame<'_, '_>, span: &SpanRow<'_>) -> Result<()> {
        let time = choose_time(span.start_time, span.end_time, self.arrival);
        let Some((place, row)) = self.file_row(frame, time, span.size)? else { return Ok(()) };
        let partition = &mut self.partitions[place];
        push_count(&mut partition.dropped, row, span.dropped);
        push_attributes(&mut partition.attributes, &mut self.keys[0], row, &span.attributes);
        if let CoreColumns::Spans(core) = &mut partition.core {
            core.push(row, span);
        }
        Ok(())
    }

    fn refuse(&mut self, records: u64, issue: Issue) {
        self.report.rejected += records;
        if self.report.issues.len() < REPORTED_ISSUES {
            self.report.issues.push(issue);
        }
    }
}

fn write_identity(identity: &mut Vec<u8>, raw: &[u8], schema_url: &str) {
    identity.clear();
    identity.extend_from_slice(&(schema_url.len() as u64).to_le_bytes());
    identity.extend_from_slice(schema_url.as_bytes());
    identity.extend_from_slice(raw);
}
