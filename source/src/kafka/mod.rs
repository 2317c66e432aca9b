//! `kafka`: how far a consumer group lies behind.
//!
//! KEDA's parameters and rules (documentation of its scaler "Apache Kafka"): the lag of a partition, what partitions without a committed offset count, and by
//! how much the sum is capped, so that no more replicas are made than can get a partition.

mod wire;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use jiff::Timestamp;
use kafka_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, MetadataRequest, OffsetFetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use parking_lot::Mutex;

use crate::parameters::Parameters;
use crate::tls::{self, Pem};
use crate::{Client, Observed, SourceError};
use wire::{Connection, Login};

/// `ListOffsets` for the end of the log.
const END: i64 = -1;
/// A partition from which the group committed nothing.
const NONE: i64 = -1;

type Partition = (String, i32);

#[derive(Debug)]
pub(crate) struct Kafka {
    bootstrap: Vec<String>,
    login: Login,
    group: String,
    topic: Option<String>,
    partitions: Option<BTreeSet<i32>>,
    rules: Rules,
    /// Taken while they are used, so that one whose call was given up is never used again.
    idle: Mutex<BTreeMap<String, Connection>>,
    /// What the group had committed at the last look, for `excludePersistentLag`.
    before: Mutex<BTreeMap<Partition, i64>>,
}

/// What counts as lag.
#[derive(Debug, Clone, Default)]
struct Rules {
    threshold: f64,
    activation: f64,
    is_earliest: bool,
    is_zero_without_offset: bool,
    is_persistent_excluded: bool,
    is_idle_allowed: bool,
    is_limited_to_lagging: bool,
    is_even: bool,
}

impl Kafka {
    pub(crate) fn new(parameters: &Parameters) -> Result<Self, SourceError> {
        let flag = |name: &str| parameters.flag(name, false);
        let is_earliest = match parameters.get("offsetResetPolicy").unwrap_or("latest") {
            "latest" => false,
            "earliest" => true,
            other => {
                return Err(SourceError::invalid(format!(
                    "offsetResetPolicy: {other:?} is neither latest nor earliest"
                )));
            }
        };
        let rules = Rules {
            threshold: parameters.number("lagThreshold")?.unwrap_or(10.0),
            activation: parameters.number("activationLagThreshold")?.unwrap_or(0.0),
            is_earliest,
            is_zero_without_offset: flag("scaleToZeroOnInvalidOffset")?,
            is_persistent_excluded: flag("excludePersistentLag")?,
            is_idle_allowed: flag("allowIdleConsumers")?,
            is_limited_to_lagging: flag("limitToPartitionsWithLag")?,
            is_even: flag("ensureEvenDistributionOfPartitions")?,
        };
        let topic = parameters.get("topic").map(ToOwned::to_owned);
        if rules.threshold < 1.0 {
            return Err(SourceError::invalid("lagThreshold: must be at least 1"));
        }
        if rules.is_idle_allowed && (rules.is_limited_to_lagging || rules.is_even) {
            return Err(SourceError::invalid(
                "allowIdleConsumers contradicts limitToPartitionsWithLag and ensureEvenDistributionOfPartitions",
            ));
        }
        if topic.is_none() && (rules.is_limited_to_lagging || rules.is_even) {
            return Err(SourceError::invalid(
                "limitToPartitionsWithLag and ensureEvenDistributionOfPartitions need topic",
            ));
        }
        let bootstrap = parameters.need("bootstrapServers")?.split(',').map(|server| server.trim().to_owned());
        Ok(Self {
            bootstrap: bootstrap.collect(),
            login: login(parameters)?,
            group: parameters.need("consumerGroup")?.to_owned(),
            partitions: parameters.get("partitionLimitation").map(ranges).transpose()?,
            topic,
            rules,
            idle: Mutex::default(),
            before: Mutex::default(),
        })
    }

    /// An idle connection to one of these, or a new one to the first that answers.
    async fn connection(&self, addresses: &[String]) -> Result<Connection, SourceError> {
        for address in addresses {
            if let Some(connection) = self.idle.lock().remove(address) {
                return Ok(connection);
            }
        }
        let mut problem = SourceError::invalid("bootstrapServers: none is named");
        for address in addresses {
            match Connection::open(address, &self.login).await {
                Ok(connection) => return Ok(connection),
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    /// Offsets that the group committed; all of its topics where none is named.
    async fn committed(
        &self,
        topics: Option<Vec<OffsetFetchRequestTopic>>,
    ) -> Result<BTreeMap<Partition, i64>, SourceError> {
        let group = StrBytes::from_string(self.group.clone());
        let mut any = self.connection(&self.bootstrap).await?;
        let found = any.call(&FindCoordinatorRequest::default().with_key(group.clone()), 2).await?;
        any.check(found.error_code, "finding the group's coordinator")?;
        let coordinator = format!("{}:{}", found.host.as_str(), found.port);
        self.idle.lock().insert(self.bootstrap[0].clone(), any);
        let mut connection = self.connection(std::slice::from_ref(&coordinator)).await?;
        let request = OffsetFetchRequest::default().with_group_id(group.into()).with_topics(topics);
        let answer = connection.call(&request, 7).await?;
        connection.check(answer.error_code, "the group's offsets")?;
        let mut offsets = BTreeMap::new();
        for topic in &answer.topics {
            for partition in &topic.partitions {
                let key = (topic.name.to_string(), partition.partition_index);
                connection.check(partition.error_code, &format!("the group's offset of {} {}", key.0, key.1))?;
                offsets.insert(key, partition.committed_offset);
            }
        }
        self.idle.lock().insert(coordinator, connection);
        Ok(offsets)
    }

    /// The partitions of topics, each with the address of its leader.
    async fn leaders(&self, topics: &[String]) -> Result<BTreeMap<Partition, String>, SourceError> {
        let mut connection = self.connection(&self.bootstrap).await?;
        let topics = topics.iter().map(|topic| {
            MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_string(topic.clone()))))
        });
        let request =
            MetadataRequest::default().with_topics(Some(topics.collect())).with_allow_auto_topic_creation(false);
        let answer = connection.call(&request, 9).await?;
        let brokers: BTreeMap<BrokerId, String> = answer
            .brokers
            .iter()
            .map(|broker| (broker.node_id, format!("{}:{}", broker.host.as_str(), broker.port)))
            .collect();
        let mut leaders = BTreeMap::new();
        for topic in &answer.topics {
            let name = topic.name.as_ref().map(|name| name.to_string()).unwrap_or_default();
            connection.check(topic.error_code, &format!("topic {name}"))?;
            for partition in &topic.partitions {
                let is_wanted = self.partitions.as_ref().is_none_or(|only| only.contains(&partition.partition_index));
                if !is_wanted {
                    continue;
                }
                connection.check(partition.error_code, &format!("{name} {}", partition.partition_index))?;
                let Some(address) = brokers.get(&partition.leader_id) else {
                    return Err(SourceError::unavailable(format!(
                        "Kafka: {name} {} has no leader",
                        partition.partition_index
                    )));
                };
                leaders.insert((name.clone(), partition.partition_index), address.clone());
            }
        }
        self.idle.lock().insert(self.bootstrap[0].clone(), connection);
        Ok(leaders)
    }

    /// The ends of partitions, asked of their leaders.
    async fn ends(&self, leaders: &BTreeMap<Partition, String>) -> Result<BTreeMap<Partition, i64>, SourceError> {
        let mut by_leader: BTreeMap<&String, BTreeMap<&String, Vec<i32>>> = BTreeMap::new();
        for ((topic, partition), leader) in leaders {
            by_leader.entry(leader).or_default().entry(topic).or_default().push(*partition);
        }
        let mut ends = BTreeMap::new();
        for (leader, topics) in by_leader {
            let topics = topics.into_iter().map(|(topic, partitions)| {
                let one = |index| ListOffsetsPartition::default().with_partition_index(index).with_timestamp(END);
                ListOffsetsTopic::default()
                    .with_name(TopicName(StrBytes::from_string(topic.clone())))
                    .with_partitions(partitions.into_iter().map(one).collect())
            });
            let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics.collect());
            let mut connection = self.connection(std::slice::from_ref(leader)).await?;
            let answer = connection.call(&request, 5).await?;
            for topic in &answer.topics {
                for partition in &topic.partitions {
                    let key = (topic.name.to_string(), partition.partition_index);
                    connection.check(partition.error_code, &format!("the end of {} {}", key.0, key.1))?;
                    ends.insert(key, partition.offset);
                }
            }
            self.idle.lock().insert(leader.clone(), connection);
        }
        Ok(ends)
    }
}

/// `1,2,5-8`
fn ranges(text: &str) -> Result<BTreeSet<i32>, SourceError> {
    let invalid = || SourceError::invalid(format!("partitionLimitation: {text:?} is no list like 1,2,5-8"));
    let mut found = BTreeSet::new();
    for part in text.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (i32, i32) =
            (first.trim().parse().map_err(|_| invalid())?, last.trim().parse().map_err(|_| invalid())?);
        if first < 0 || last < first || last - first > 100_000 {
            return Err(invalid());
        }
        found.extend(first..=last);
    }
    Ok(found)
}

fn login(parameters: &Parameters) -> Result<Login, SourceError> {
    if parameters.flag("unsafeSsl", false)? {
        return Err(SourceError::invalid("unsafeSsl: certificates are always verified here; give `ca` instead"));
    }
    let tls = match parameters.get("tls").unwrap_or("disable") {
        "disable" => None,
        "enable" => {
            let own = parameters.get("cert").zip(parameters.get("key"));
            Some(std::sync::Arc::new(tls::config(Pem { authority: parameters.get("ca"), own })?))
        }
        other => return Err(SourceError::invalid(format!("tls: {other:?} is neither enable nor disable"))),
    };
    let plain = match parameters.get("sasl").unwrap_or("none") {
        "none" => None,
        "plaintext" => Some((parameters.need("username")?.to_owned(), parameters.need("password")?.to_owned())),
        other => {
            return Err(SourceError::invalid(format!("sasl: {other:?} is not supported here; none and plaintext are")));
        }
    };
    Ok(Login { tls, plain })
}

/// Lag of all partitions: what scales, and what makes active.
fn lag(
    rules: &Rules,
    committed: &BTreeMap<Partition, i64>,
    ends: &BTreeMap<Partition, i64>,
    before: &BTreeMap<Partition, i64>,
) -> (f64, f64) {
    let (mut total, mut with_persistent, mut lagging) = (0_i64, 0_i64, 0_usize);
    for (partition, end) in ends {
        let offset = committed.get(partition).copied().unwrap_or(NONE);
        let (counted, all) = match offset {
            NONE if rules.is_zero_without_offset => (0, 0),
            NONE if rules.is_earliest => (*end, *end),
            NONE => (1, 1),
            offset if rules.is_persistent_excluded && before.get(partition) == Some(&offset) => (0, end - offset),
            offset => (end - offset, end - offset),
        };
        // An end that was read before the commit.
        let (counted, all) = (counted.max(0), all.max(0));
        (total, with_persistent) = (total.saturating_add(counted), with_persistent.saturating_add(all));
        lagging += usize::from(counted > 0);
    }
    let mut scaled = total as f64;
    if rules.is_even {
        let fits = |count: &usize| *count as f64 * rules.threshold >= scaled;
        let count = (1..=ends.len()).filter(|count| ends.len().is_multiple_of(*count)).find(fits);
        if scaled > 0.0 {
            scaled = count.unwrap_or(ends.len()) as f64 * rules.threshold;
        }
    } else if !rules.is_idle_allowed {
        let most = if rules.is_limited_to_lagging { lagging } else { ends.len() };
        if (scaled / rules.threshold).floor() > most as f64 {
            scaled = most as f64 * rules.threshold;
        }
    }
    (scaled, with_persistent as f64)
}

#[async_trait]
impl Client for Kafka {
    async fn observe(&self, now: Timestamp) -> Result<Observed, SourceError> {
        let (committed, leaders) = match &self.topic {
            Some(topic) => {
                let leaders = self.leaders(std::slice::from_ref(topic)).await?;
                let indexes = leaders.keys().map(|(_, partition)| *partition).collect();
                let name = TopicName(StrBytes::from_string(topic.clone()));
                let asked = OffsetFetchRequestTopic::default().with_name(name).with_partition_indexes(indexes);
                (self.committed(Some(vec![asked])).await?, leaders)
            }
            None => {
                let committed = self.committed(None).await?;
                let topics: BTreeSet<String> = committed.keys().map(|(topic, _)| topic.clone()).collect();
                let topics: Vec<String> = topics.into_iter().collect();
                (committed, self.leaders(&topics).await?)
            }
        };
        let ends = self.ends(&leaders).await?;
        let mut before = self.before.lock();
        let (scaled, all) = lag(&self.rules, &committed, &ends, &before);
        *before = committed;
        Ok(Observed { is_active: Some(all > self.rules.activation), ..Observed::new(scaled, now) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[i64]) -> BTreeMap<Partition, i64> {
        (0..).zip(values).map(|(index, value)| (("t".to_owned(), index), *value)).collect()
    }

    fn rules() -> Rules {
        Rules { threshold: 10.0, ..Rules::default() }
    }

    #[test]
    fn the_sum_is_capped_by_partitions() {
        let (committed, ends) = (of(&[0, 0, 5]), of(&[90, 0, 5]));
        assert_eq!(lag(&rules(), &committed, &ends, &of(&[])), (30.0, 90.0));
        let idle = Rules { is_idle_allowed: true, ..rules() };
        assert_eq!(lag(&idle, &committed, &ends, &of(&[])).0, 90.0);
        let lagging = Rules { is_limited_to_lagging: true, ..rules() };
        assert_eq!(lag(&lagging, &committed, &ends, &of(&[])).0, 10.0);
        // Six partitions: 1, 2, 3 or 6 consumers share them evenly.
        let even = Rules { is_even: true, ..rules() };
        assert_eq!(lag(&even, &of(&[0; 6]), &of(&[35, 0, 0, 0, 0, 0]), &of(&[])).0, 60.0);
        assert_eq!(lag(&even, &of(&[0; 6]), &of(&[15, 0, 0, 0, 0, 0]), &of(&[])).0, 20.0);
    }

    #[test]
    fn partitions_without_an_offset_count_by_the_reset_policy() {
        let ends = of(&[7, 9]);
        assert_eq!(lag(&rules(), &of(&[]), &ends, &of(&[])), (2.0, 2.0));
        let earliest = Rules { is_earliest: true, ..rules() };
        assert_eq!(lag(&earliest, &of(&[-1, -1]), &ends, &of(&[])), (16.0, 16.0));
        let zero = Rules { is_zero_without_offset: true, ..earliest };
        assert_eq!(lag(&zero, &of(&[]), &ends, &of(&[])), (0.0, 0.0));
    }

    #[test]
    fn lag_that_does_not_move_makes_active_and_scales_nothing() {
        let rules = Rules { is_persistent_excluded: true, ..rules() };
        let (committed, ends) = (of(&[5, 5]), of(&[9, 9]));
        assert_eq!(lag(&rules, &committed, &ends, &of(&[5, 4])), (4.0, 8.0));
    }

    #[test]
    fn partitions_are_ranges() {
        assert_eq!(ranges("1, 3-5"), Ok([1, 3, 4, 5].into()));
        assert!(ranges("5-3").is_err() && ranges("x").is_err() && ranges("0-999999999").is_err());
    }
}
