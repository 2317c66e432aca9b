//! Object notifications: from a webhook's body to an inbox row.
//!
//! Owns: recognizing and reading every accepted shape ([`parse`]), deciding whose an object is and admitting it ([`Admitter`]),
//! and the webhook around both ([`webhook`]). Every event is answered only after its inbox row, or its refusal, is committed.
//! Never: reading objects, or trusting a notification for more than an object's place (T-1): the bucket and key must belong to
//! the caller's organization, and the only address ever called on a sender's word is a confirmation page of SNS.
//! Start with [`parse`].

pub mod webhook;

mod admit;
mod cursor;
mod event;
mod event_grid;
mod google;
mod parse;
mod push_token;
mod s3;
mod sns;

pub use admit::{Admitted, Admitter, AdmitterOptions, Authority, Denied};
pub use event::{Content, Malformed, Notification, ObjectEvent, Source, reasons};
pub use parse::{MAX_BODY_BYTES, MAX_EVENTS, parse};
pub use push_token::{GOOGLE_KEYS_URL, KeySource, PushTokenOptions, PushTokenVerifier};
pub use sns::{ConfirmError, Confirmer};
