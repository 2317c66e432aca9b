//! What every role stands on: the metastore, the object stores, where an organization's data goes.
//!
//! Owns: which backend the configuration means. Never: runs anything. Start with [`Stack::open`].

use std::path::PathBuf;
use std::sync::Arc;

use tidemill_lake::place::Placement;
use tidemill_store::buckets::Buckets;
use tidemill_store::folder::FolderStore;
use tidemill_store::postgres::{PostgresMetastore, PostgresOptions};
use tidemill_store::sqlite::SqliteMetastore;
use tidemill_store::{Metastore, MetastoreOptions};
use tidemill_types::ErrorKind;

use crate::config::Config;
use crate::data_folder::DataFolder;
use crate::error::{Error, Result};
use crate::open_bucket::open_url_bucket;
use crate::routing::Directory;

/// The bucket name of the embedded object store.
pub const EMBEDDED_BUCKET: &str = "local";

/// An open installation.
#[derive(Debug, Clone)]
pub struct Stack {
    /// The merged configuration.
    pub config: Config,
    /// Embedded data and spool files.
    pub folder: DataFolder,
    /// Inbox, queue, catalog, configuration.
    pub metastore: Arc<dyn Metastore>,
    /// The open object stores by bucket name.
    pub buckets: Arc<Buckets>,
    /// Where an organization's objects go.
    pub directory: Arc<Directory>,
    /// Where this process keeps files that it works on.
    pub spool: PathBuf,
}

impl Stack {
    /// Opens what the configuration names; the data folder exists already.
    ///
    /// # Errors
    /// Those of the stores, each with what to check.
    pub async fn open(config: Config, spool: PathBuf) -> Result<Self> {
        let folder = DataFolder::new(config.data_dir());
        let metastore = open_metastore(&config).await?;
        let buckets = Arc::new(Buckets::new());
        let bucket = open_default_bucket(&config, &buckets).await?;
        let directory = Directory::open(config.clone(), metastore.clone(), buckets.clone(), bucket).await?;
        Ok(Self { config, folder, metastore, buckets, directory, spool })
    }

    /// Where an organization's objects go, as the engines ask for it.
    pub fn placement(&self) -> Arc<dyn Placement> {
        self.directory.clone()
    }
}

/// Opens the metastore; an embedded one is created.
///
/// # Errors
/// Those of the store, with what to check.
pub async fn open_metastore(config: &Config) -> Result<Arc<dyn Metastore>> {
    match config.optional("metastore.url") {
        None => {
            let path = DataFolder::new(config.data_dir()).metastore();
            Ok(Arc::new(SqliteMetastore::open_with(&path, metastore_options(config)).await?))
        }
        Some(dsn) => {
            let mut options = PostgresOptions::new(dsn);
            options.listen_dsn = config.optional("metastore.listen_url").map(str::to_owned);
            options.root_certificates = config.path("metastore.root_certificates");
            options.connections = config.count("metastore.connections");
            options.metastore = metastore_options(config);
            let connected = PostgresMetastore::connect(&options).await;
            Ok(Arc::new(connected.map_err(|error| match error.kind() {
                ErrorKind::Unavailable => Error::from(error).with_hint("does PostgreSQL run where metastore.url says?"),
                _ => Error::from(error),
            })?))
        }
    }
}

fn metastore_options(config: &Config) -> MetastoreOptions {
    MetastoreOptions {
        replaced_grace: config.duration("sweep.replaced_grace"),
        raw_grace: config.duration("sweep.raw_grace"),
        ..MetastoreOptions::default()
    }
}

/// Opens the metastore if there is one: a question must not create a data folder.
///
/// # Errors
/// `NotFound` when there is no embedded one; those of the store.
pub async fn open_existing_metastore(config: &Config) -> Result<Arc<dyn Metastore>> {
    let path = DataFolder::new(config.data_dir()).metastore();
    if config.optional("metastore.url").is_none() && !path.exists() {
        return Err(no_data_folder(config));
    }
    open_metastore(config).await
}

/// What a question says where there is nothing to ask.
pub fn no_data_folder(config: &Config) -> Error {
    let message = format!("there is no data folder at {}", config.data_dir().display());
    Error::new(ErrorKind::NotFound, message)
        .with_hint("start one with `tidemill up`, or say where it is with --data-dir or --url")
}

/// Opens the bucket that serves organizations without a storage profile; returns its name.
///
/// # Errors
/// Those of the store, with what to check.
pub async fn open_default_bucket(config: &Config, buckets: &Buckets) -> Result<String> {
    match config.optional("storage.url") {
        None => {
            let store = FolderStore::open(&DataFolder::new(config.data_dir()).objects())?;
            buckets.set(EMBEDDED_BUCKET, Arc::new(store));
            Ok(EMBEDDED_BUCKET.to_owned())
        }
        Some(url) => {
            let (name, store) = open_url_bucket(config, url)?;
            buckets.set(name.clone(), store);
            Ok(name)
        }
    }
}
