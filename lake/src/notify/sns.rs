//! Amazon SNS: notifications wrapped in its message, and the confirmation of a subscription.
//!
//! Format: "Parsing Amazon SNS message formats" of the Amazon SNS Developer Guide. A page is opened only on a host of SNS itself
//! or at the configured endpoint, without following redirects, so that a sender cannot make this process call other addresses.

use std::time::Duration;

use reqwest::{Client, Url};

use super::cursor::{Cursor, excerpt};
use super::event::{Content, Malformed, Notification, Source};
use super::parse::{Wrapping, nothing_new, parse_json, parse_value};

/// `{"Type": "Notification", "TopicArn", "Message": "<JSON as text>"}` and its two relatives.
pub(super) fn read(root: &Cursor<'_>, wrapping: Wrapping) -> Result<Notification, Malformed> {
    if wrapping == Wrapping::Refused {
        return Err(root.malformed("an SNS message inside an SNS message"));
    }
    let kind = root.field("Type")?;
    let content = match kind.text()? {
        "Notification" => {
            let message = root.field("Message")?;
            let inner = parse_json(message.filled_text()?.as_bytes(), message.path())?;
            parse_value(&Cursor::root(&inner, message.path()), Wrapping::Refused)?.content
        }
        "SubscriptionConfirmation" => Content::ConfirmSubscription {
            topic: root.field("TopicArn")?.filled_text()?.to_owned(),
            url: root.field("SubscribeURL")?.filled_text()?.to_owned(),
        },
        "UnsubscribeConfirmation" => nothing_new(),
        other => {
            let expected = "Notification, SubscriptionConfirmation or UnsubscribeConfirmation";
            return Err(kind.malformed(format!("expected {expected}, found {:?}", excerpt(other))));
        }
    };
    Ok(Notification { source: Source::Sns, content })
}

/// Why a subscription was not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    /// The page is not one of SNS.
    #[error("the subscription is not confirmed: {0}")]
    Refused(String),
    /// SNS did not answer, or not with success.
    #[error("the subscription could not be confirmed: {0}")]
    Unavailable(String),
}

/// Opens confirmation pages.
#[derive(Debug, Clone)]
pub struct Confirmer {
    endpoint: Option<Url>,
}

impl Confirmer {
    /// `endpoint` is the address of an SNS that is not Amazon's, whose pages are opened too.
    ///
    /// # Errors
    /// An endpoint that is no URL.
    pub fn new(endpoint: Option<&str>) -> Result<Self, ConfirmError> {
        let endpoint = endpoint.map(Url::parse).transpose();
        let endpoint = endpoint.map_err(|error| ConfirmError::Refused(format!("the configured endpoint: {error}")))?;
        Ok(Self { endpoint })
    }

    /// Opens the page if it is one of SNS.
    ///
    /// # Errors
    /// A page that is not one of SNS, or no answer with success.
    pub async fn confirm(&self, url: &str) -> Result<(), ConfirmError> {
        let page = trusted_page(url, self.endpoint.as_ref()).map_err(ConfirmError::Refused)?;
        let unavailable = |error: reqwest::Error| ConfirmError::Unavailable(error.to_string());
        // Built anew, because subscriptions are confirmed once, and a client holds all of the system's certificates.
        let client =
            Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(Duration::from_secs(10)).build();
        let answer = client.map_err(unavailable)?.get(page).send().await.map_err(unavailable)?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(ConfirmError::Unavailable(format!("SNS answered {}", answer.status())))
    }
}

/// The page, if it asks SNS itself or the configured endpoint to confirm a subscription.
fn trusted_page(url: &str, endpoint: Option<&Url>) -> Result<Url, String> {
    let page = Url::parse(url).map_err(|error| format!("SubscribeURL {:?}: {error}", excerpt(url)))?;
    let confirms = page.query_pairs().any(|(name, value)| name == "Action" && value == "ConfirmSubscription");
    if !confirms || page.path() != "/" || !page.username().is_empty() || page.password().is_some() {
        return Err(format!(
            "SubscribeURL {:?} is not of the form https://…/?Action=ConfirmSubscription&…",
            excerpt(url)
        ));
    }
    if endpoint.is_some_and(|endpoint| endpoint.origin() == page.origin()) {
        return Ok(page);
    }
    let of_amazon = page.scheme() == "https" && page.port().is_none() && page.host_str().is_some_and(is_sns_host);
    if of_amazon {
        return Ok(page);
    }
    Err(format!(
        "SubscribeURL {:?} is neither https://sns.<region>.amazonaws.com nor the configured SNS endpoint",
        excerpt(url)
    ))
}

/// `sns.<region>.amazonaws.com`, also the FIPS and the Chinese hosts ("Amazon SNS endpoints and quotas", AWS General Reference).
fn is_sns_host(host: &str) -> bool {
    let region = host
        .strip_suffix(".amazonaws.com")
        .or_else(|| host.strip_suffix(".amazonaws.com.cn"))
        .and_then(|rest| rest.strip_prefix("sns.").or_else(|| rest.strip_prefix("sns-fips.")));
    region.is_some_and(|region| {
        !region.is_empty() && region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_sns_are_opened() {
        let endpoint = Url::parse("http://127.0.0.1:5000").expect("a URL");
        let query = "?Action=ConfirmSubscription&TopicArn=a&Token=t";
        for page in [
            "https://sns.us-east-1.amazonaws.com/",
            "https://sns-fips.us-gov-west-1.amazonaws.com/",
            "https://sns.cn-north-1.amazonaws.com.cn/",
            "http://127.0.0.1:5000/",
        ] {
            assert!(trusted_page(&format!("{page}{query}"), Some(&endpoint)).is_ok(), "{page}");
        }
        for page in [
            "http://sns.us-east-1.amazonaws.com/",
            "https://sns.us-east-1.amazonaws.com:8443/",
            "https://sns.us-east-1.amazonaws.com.attacker.example/",
            "https://sns.us-east-1.amazonaws.com@attacker.example/",
            "https://user@sns.us-east-1.amazonaws.com/",
            "https://sns.x.s3.amazonaws.com/",
            "https://bucket.s3.amazonaws.com/",
            "https://sns..amazonaws.com/",
            "https://169.254.169.254/",
            "http://127.0.0.1:5001/",
            "https://127.0.0.1:5000/",
            "file:///etc/passwd",
            "not a url",
        ] {
            assert!(trusted_page(&format!("{page}{query}"), Some(&endpoint)).is_err(), "{page}");
        }
        assert!(trusted_page("https://sns.us-east-1.amazonaws.com/?Action=Publish", None).is_err());
        assert!(trusted_page(&format!("https://sns.us-east-1.amazonaws.com/latest{query}"), None).is_err());
    }
}
