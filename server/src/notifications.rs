//! The notify role: the webhook, watched folders, SQS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use tidemill_lake::auth::Authenticator;
use tidemill_lake::clock::SystemClock;
use tidemill_lake::notify::webhook::{self, WebhookDeps};
use tidemill_lake::notify::{Admitter, AdmitterOptions, Confirmer, KeySource, PushTokenOptions, PushTokenVerifier};
use tidemill_lake::sqs::{self, SqsClient, SqsOptions};
use tidemill_lake::watch::{Watch, WatchOptions};
use tidemill_store::folder::FolderStore;
use tidemill_types::{ErrorKind, OrganizationId, PrefixMapping, Routing};

use crate::bootstrap::FIRST_ORGANIZATION;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::intake::from_lake;
use crate::roles::Assembly;
use crate::serve::Tasks;

impl Assembly {
    /// Starts every source that the configuration names; returns `routes` with the webhook added.
    pub(crate) async fn start_notifications(
        &self,
        tasks: &mut Tasks,
        authenticator: Arc<dyn Authenticator>,
        routes: Router,
    ) -> Result<Router> {
        let config = &self.stack.config;
        let organizations = self.stack.metastore.organizations().await?;
        let first = organizations.iter().find(|it| it.name == FIRST_ORGANIZATION).map(|it| it.id);
        for folder in config.list("notify.watch") {
            self.start_watch(tasks, Path::new(&folder), first)?;
        }
        let admitter = self.admitter(self.stack.directory.routing());
        if let Some(client) = sqs_client(config)? {
            tasks.spawn("SQS", sqs::run(client, admitter.clone(), tasks.stop.clone()));
        }
        let confirmer = Confirmer::new(config.optional("notify.sns_endpoint"))
            .map_err(|error| Error::caused(ErrorKind::Invalid, "notify.sns_endpoint", error))?;
        let deps = WebhookDeps { admitter, authenticator, confirmer, push_tokens: push_tokens(config)? };
        Ok(routes.merge(webhook::router(deps)))
    }

    fn admitter(&self, routing: Arc<ArcSwap<Routing>>) -> Admitter {
        Admitter::new(AdmitterOptions {
            metastore: self.stack.metastore.clone(),
            buckets: self.stack.buckets.as_ref().clone(),
            routing,
            clock: Arc::new(SystemClock),
            gate: self.gate.clone(),
        })
    }

    /// A watched folder is a bucket of its own, named by its path, in which every organization may use `otel-raw/`; what lies
    /// elsewhere in it is the first organization's.
    fn start_watch(&self, tasks: &mut Tasks, folder: &Path, first: Option<OrganizationId>) -> Result<()> {
        let fail = |error| Error::io(format!("watching {}", folder.display()), error);
        std::fs::create_dir_all(folder).map_err(fail)?;
        let folder: PathBuf = folder.canonicalize().map_err(fail)?;
        let bucket = folder.display().to_string();
        self.stack.buckets.set(bucket.clone(), Arc::new(FolderStore::open(&folder)?));
        let mapping = |organization| PrefixMapping {
            bucket: bucket.clone(),
            organization,
            path_prefix: String::new(),
            signal: None,
        };
        let mappings = first.map(mapping).into_iter().collect();
        let routing = Routing { mappings, default_bucket: Some(bucket.clone()), ..Routing::default() };
        let admitter = self.admitter(Arc::new(ArcSwap::from_pointee(routing)));
        let hash = hex::encode(&blake3::hash(bucket.as_bytes()).as_bytes()[..8]);
        let journal = self.stack.folder.root().join(format!("watched-{hash}"));
        let watch = Watch::open(WatchOptions::new(folder, bucket, journal), admitter).map_err(from_lake)?;
        tasks.spawn("watched folder", watch.run(tasks.stop.clone()));
        Ok(())
    }
}

fn sqs_client(config: &Config) -> Result<Option<SqsClient>> {
    let Some(url) = config.optional("notify.sqs_queue_url") else { return Ok(None) };
    let mut options = SqsOptions::new(url);
    options.region = config.optional("notify.sqs_region").map(str::to_owned);
    options.role = config.optional("notify.sqs_role").map(str::to_owned);
    options.endpoint = config.optional("notify.sqs_endpoint").map(str::to_owned);
    options.pollers = config.count("notify.sqs_pollers");
    let client =
        SqsClient::new(options).map_err(|error| Error::caused(ErrorKind::Invalid, "notify.sqs_queue_url", error))?;
    Ok(Some(client))
}

fn push_tokens(config: &Config) -> Result<Option<Arc<PushTokenVerifier>>> {
    let (audience, email) =
        match ["notify.pubsub_audience", "notify.pubsub_service_account"].map(|key| config.optional(key)) {
            [Some(audience), Some(email)] => (audience.to_owned(), email.to_owned()),
            _ => return Ok(None),
        };
    let keys = match config.path("notify.pubsub_keys_file") {
        Some(file) => KeySource::File(file.to_owned()),
        None => KeySource::Url(config.settings.text("notify.pubsub_keys_url").to_owned()),
    };
    let verifier = PushTokenVerifier::new(PushTokenOptions { keys, audience, email })
        .map_err(|error| Error::caused(ErrorKind::Invalid, "notify.pubsub_audience", error))?;
    Ok(Some(Arc::new(verifier)))
}
