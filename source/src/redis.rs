//! Redis and what speaks its protocol: the length of a list, set, sorted set or hash (`redis`), and what waits in a stream (`redis-streams`).
//!
//! KEDA's parameters and rules (documentation of its scalers "Redis Lists" and "Redis Streams").

use async_trait::async_trait;
use jiff::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, Value};

use crate::parameters::Parameters;
use crate::{Client, Observed, SourceError};

/// What counts as the length of a key, by its type; KEDA reads the same four.
const LENGTH: &str = "local t = redis.call('type', KEYS[1]).ok
if t == 'none' then return 0 end
if t == 'list' then return redis.call('llen', KEYS[1]) end
if t == 'set' then return redis.call('scard', KEYS[1]) end
if t == 'zset' then return redis.call('zcard', KEYS[1]) end
if t == 'hash' then return redis.call('hlen', KEYS[1]) end
return redis.error_reply('WRONGTYPE the key holds a ' .. t)";

#[derive(Debug)]
pub(crate) struct Redis {
    client: redis::Client,
    /// For messages.
    address: String,
    what: What,
    /// Taken while it is used, so that one whose call was given up is never used again.
    idle: parking_lot::Mutex<Option<MultiplexedConnection>>,
}

#[derive(Debug)]
enum What {
    Length { key: String },
    Stream { key: String, group: Option<Group> },
}

#[derive(Debug)]
struct Group {
    name: String,
    /// Entries that were not delivered yet, instead of those that were delivered and not acknowledged.
    is_lag: bool,
}

impl Redis {
    pub(crate) fn list(parameters: &Parameters) -> Result<Self, SourceError> {
        Self::new(parameters, What::Length { key: parameters.need("listName")?.to_owned() })
    }

    pub(crate) fn stream(parameters: &Parameters) -> Result<Self, SourceError> {
        let is_lag = parameters.number("lagCount")?.is_some_and(|lag| lag != 0.0);
        let group = parameters.get("consumerGroup").map(|name| Group { name: name.to_owned(), is_lag });
        if is_lag && group.is_none() {
            return Err(SourceError::invalid("lagCount needs consumerGroup"));
        }
        Self::new(parameters, What::Stream { key: parameters.need("stream")?.to_owned(), group })
    }

    fn new(parameters: &Parameters, what: What) -> Result<Self, SourceError> {
        let address = match parameters.get("address") {
            Some(address) => address.to_owned(),
            None => format!("{}:{}", parameters.need("host")?, parameters.need("port")?),
        };
        let is_tls = parameters.flag("enableTLS", false)? || parameters.get("tls") == Some("enable");
        let is_unsafe = parameters.flag("unsafeSsl", false)?;
        let database = parameters.get("databaseIndex").unwrap_or("0");
        let escaped = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let user = parameters.get("username").map(escaped).unwrap_or_default();
        let login = parameters.get("password").map(|password| format!("{user}:{}@", escaped(password)));
        let url = format!(
            "{}://{}{address}/{database}{}",
            if is_tls { "rediss" } else { "redis" },
            login.unwrap_or_default(),
            if is_tls && is_unsafe { "#insecure" } else { "" },
        );
        let client = redis::Client::open(url).map_err(|error| SourceError::invalid(format!("address: {error}")))?;
        Ok(Self { client, address, what, idle: parking_lot::Mutex::default() })
    }

    fn failed(&self, error: &RedisError) -> SourceError {
        SourceError::unavailable(format!("asking Redis at {}: {error}", self.address))
    }

    async fn value(&self, connection: &mut MultiplexedConnection) -> Result<f64, RedisError> {
        let count: i64 = match &self.what {
            What::Length { key } => redis::cmd("EVAL").arg(LENGTH).arg(1).arg(key).query_async(connection).await?,
            What::Stream { key, group: None } => redis::cmd("XLEN").arg(key).query_async(connection).await?,
            What::Stream { key, group: Some(group) } if group.is_lag => lag(connection, key, &group.name).await?,
            What::Stream { key, group: Some(group) } => {
                let answer: Vec<Value> =
                    redis::cmd("XPENDING").arg(key).arg(&group.name).query_async(connection).await?;
                redis::from_redis_value(answer.into_iter().next().unwrap_or(Value::Int(0)))?
            }
        };
        Ok(count as f64)
    }
}

/// Entries that a group was not given yet: 0 without the stream, all of it without the group.
async fn lag(connection: &mut MultiplexedConnection, key: &str, group: &str) -> Result<i64, RedisError> {
    let groups: Vec<std::collections::HashMap<String, Value>> =
        match redis::cmd("XINFO").arg("GROUPS").arg(key).query_async(connection).await {
            Ok(groups) => groups,
            Err(error) if error.to_string().contains("no such key") => return Ok(0),
            Err(error) => return Err(error),
        };
    for mut known in groups {
        let name: String = redis::from_redis_value(known.remove("name").unwrap_or(Value::Nil))?;
        if name != group {
            continue;
        }
        return match known.remove("lag") {
            // Entries in the middle were deleted, or the server is older than Redis 7.
            None | Some(Value::Nil) => Err((ErrorKind::Client, "the server does not tell this group's lag").into()),
            Some(lag) => Ok(redis::from_redis_value(lag)?),
        };
    }
    redis::cmd("XLEN").arg(key).query_async(connection).await
}

#[async_trait]
impl Client for Redis {
    async fn observe(&self, now: Timestamp) -> Result<Observed, SourceError> {
        let idle = self.idle.lock().take();
        if let Some(mut connection) = idle
            && let Ok(value) = self.value(&mut connection).await
        {
            *self.idle.lock() = Some(connection);
            return Ok(Observed::new(value, now));
        }
        // None yet, or the server closed it meanwhile: what a new one says counts.
        let connection = self.client.get_multiplexed_async_connection().await;
        let mut connection = connection.map_err(|error| self.failed(&error))?;
        let value = self.value(&mut connection).await.map_err(|error| self.failed(&error))?;
        *self.idle.lock() = Some(connection);
        Ok(Observed::new(value, now))
    }
}
