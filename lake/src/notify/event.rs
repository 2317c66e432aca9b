//! What a notification says, whoever sent it.

use std::fmt;

use tidemill_types::TimestampNs;

/// One object that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEvent {
    /// The bucket or container.
    pub bucket: String,
    /// The decoded path inside it.
    pub key: String,
    /// Its size in bytes, where the event says it.
    pub size_bytes: Option<u64>,
    /// Its version or generation, where the store keeps versions.
    pub version: Option<String>,
    /// The ETag as `If-Match` takes it, where the event gives it in that form.
    pub etag: Option<String>,
    /// When it was written, where the event says it.
    pub event_time: Option<TimestampNs>,
}

/// Who sends notifications of a shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Amazon S3, directly, through SQS, or a store that speaks its protocol.
    S3,
    /// Amazon S3 through SNS.
    Sns,
    /// Amazon S3 through EventBridge.
    EventBridge,
    /// Google Cloud Storage, its object resource as such.
    Gcs,
    /// Google Cloud Storage through a Pub/Sub push subscription.
    PubSub,
    /// Azure Event Grid, in its own schema.
    EventGrid,
    /// CloudEvents 1.0 of Azure Event Grid or Google Eventarc.
    CloudEvents,
}

impl Source {
    /// The name in answers, logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Sns => "sns",
            Self::EventBridge => "eventbridge",
            Self::Gcs => "gcs",
            Self::PubSub => "pubsub",
            Self::EventGrid => "event_grid",
            Self::CloudEvents => "cloudevents",
        }
    }
}

/// A notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Who sends notifications of this shape.
    pub source: Source,
    /// What it says.
    pub content: Content,
}

/// What a notification says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Objects were written, or something happened that is not the writing of an object.
    Objects {
        /// The objects written.
        events: Vec<ObjectEvent>,
        /// Events about something else: deletions, tests, restores.
        skipped: usize,
        /// Events that cannot be read, among others that can.
        malformed: Vec<Malformed>,
    },
    /// SNS asks whether its messages are wanted; yes is said by opening the page.
    ConfirmSubscription {
        /// The topic's ARN.
        topic: String,
        /// The page to open, if its host can be trusted.
        url: String,
    },
    /// Event Grid asks whether its events are wanted; yes is said by answering with the code.
    ValidateSubscription {
        /// The code to answer with.
        code: String,
    },
}

/// Why a notification cannot be read, with the place in its JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Malformed {
    /// Where: `Records[3].s3.object.key`; `$` is the whole body.
    pub path: String,
    /// What is wrong and what is expected.
    pub reason: String,
}

/// Reasons told of one notification.
const REASONS: usize = 20;

/// What a person is told of events that cannot be read, one a line, bounded.
pub fn reasons(malformed: &[Malformed]) -> String {
    let mut lines: Vec<String> = malformed.iter().take(REASONS).map(Malformed::to_string).collect();
    if malformed.len() > REASONS {
        lines.push(format!("and {} more", malformed.len() - REASONS));
    }
    lines.join("\n")
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.reason)
    }
}
