//! The first start: an organization, a key for senders, a key for commands on this machine.

use tidemill_types::{ErrorKind, OrganizationId};

use crate::admin::Admin;
use crate::data_folder::{DataFolder, Ports};
use crate::error::Result;

/// The name of the organization that the first start creates.
pub const FIRST_ORGANIZATION: &str = "default";

/// The metastore's note of how far the first start came.
const NOTE: &str = "first-start";
const BEGUN: &str = "begun";

/// What a first start made.
#[derive(Debug)]
pub struct FirstStart {
    /// The organization.
    pub organization: OrganizationId,
    /// Its key, told only now.
    pub key: String,
}

/// Creates the first organization and its key where there is none; `None` on every later start. Until [`note_told`], each start is
/// the first, with a key of its own: of one whose ports were taken, or that was killed, nobody knows the key.
///
/// # Errors
/// Those of the metastore.
pub async fn create_first_organization(admin: &Admin) -> Result<Option<FirstStart>> {
    let organizations = admin.organizations().await?;
    let is_unfinished = admin.metastore.document(NOTE).await?.as_deref() == Some(BEGUN);
    if !organizations.is_empty() && !is_unfinished {
        return Ok(None);
    }
    admin.metastore.store_document(NOTE, BEGUN).await?;
    let organization = match organizations.into_iter().find(|it| it.name == FIRST_ORGANIZATION) {
        Some(found) => found,
        None => match admin.create_organization(FIRST_ORGANIZATION, None).await {
            // Another process started on the same metastore at the same time.
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(None),
            created => created?,
        },
    };
    let key = admin.create_key(Some(FIRST_ORGANIZATION), "made at the first start").await?;
    Ok(Some(FirstStart { organization: organization.id, key: key.key }))
}

/// Notes that the key of a first start was told, so that there is no other first start.
///
/// # Errors
/// Those of the metastore.
pub async fn note_told(admin: &Admin) -> Result<()> {
    Ok(admin.metastore.store_document(NOTE, "told").await?)
}

/// Makes sure that commands on this machine can call the server as an operator: their key lies in the data folder.
///
/// # Errors
/// Those of the metastore, and of writing the file.
pub async fn ensure_operator_key(admin: &Admin, folder: &DataFolder) -> Result<()> {
    if let Some(key) = folder.operator_key() {
        let hash = crate::auth::hash_key(&key);
        if admin.keys(None).await?.iter().any(|stored| stored.hash == hash) {
            return Ok(());
        }
    }
    let key = admin.create_key(None, "commands on the server's machine").await?;
    folder.write_operator_key(&key.key)
}

/// The lines that point an OpenTelemetry SDK or collector at this server.
pub fn exporter_lines(ports: &Ports, key: Option<&str>) -> String {
    let mut lines = String::new();
    if let Some(port) = ports.grpc {
        lines.push_str(&format!("export OTEL_EXPORTER_OTLP_ENDPOINT={}\n", ports.url(port)));
        lines.push_str("export OTEL_EXPORTER_OTLP_PROTOCOL=grpc\n");
    } else if let Some(port) = ports.http {
        lines.push_str(&format!("export OTEL_EXPORTER_OTLP_ENDPOINT={}\n", ports.url(port)));
        lines.push_str("export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf\n");
    }
    if let Some(key) = key {
        // Not `authorization=Bearer%20…`: some SDKs do not decode the blank.
        lines.push_str(&format!("export OTEL_EXPORTER_OTLP_HEADERS=x-api-key={key}\n"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use tidemill_store::sqlite::SqliteMetastore;

    use super::*;

    #[tokio::test]
    async fn until_its_key_is_told_a_start_is_the_first() {
        let folder = tempfile::tempdir().expect("a folder");
        let metastore = SqliteMetastore::open(&folder.path().join("metastore.sqlite")).await.expect("opens");
        let admin = Admin { metastore: Arc::new(metastore) };
        let first = create_first_organization(&admin).await.expect("is made").expect("is a first start");
        let again = create_first_organization(&admin).await.expect("is made").expect("nobody knows the key");
        assert_eq!(first.organization, again.organization);
        assert_ne!(first.key, again.key);
        note_told(&admin).await.expect("is noted");
        assert!(create_first_organization(&admin).await.expect("is looked at").is_none());
    }

    #[test]
    fn the_lines_can_be_pasted() {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let ports = Ports {
            pid: 1,
            scheme: "http".to_owned(),
            address,
            api: 8080,
            grpc: Some(4317),
            http: Some(4318),
            certificate: None,
            metastore: None,
        };
        assert_eq!(
            exporter_lines(&ports, Some("tm_1")),
            "export OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4317\nexport OTEL_EXPORTER_OTLP_PROTOCOL=grpc\n\
             export OTEL_EXPORTER_OTLP_HEADERS=x-api-key=tm_1\n"
        );
    }
}
