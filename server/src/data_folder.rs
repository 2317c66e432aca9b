//! The data folder: what lies where, one `up` at a time, and how a command finds the server that runs on it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};
use tidemill_store::lock::DataFolderLock;
use tidemill_types::ErrorKind;

use crate::error::{Error, Result};

/// A data folder.
#[derive(Debug, Clone)]
pub struct DataFolder {
    root: PathBuf,
}

/// `ports.json`: where the running server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// The server's process.
    pub pid: u32,
    /// `http` or `https`.
    pub scheme: String,
    /// The bound address.
    pub address: IpAddr,
    /// The query APIs, administration, health, metrics.
    pub api: u16,
    /// OTLP over gRPC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<u16>,
    /// OTLP over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<u16>,
    /// The file of the certificate that commands on this machine expect of this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// The server's `metastore.url`, its password masked; absent for the embedded one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metastore: Option<String>,
}

impl Ports {
    /// The URL at which this machine reaches `port`.
    pub fn url(&self, port: u16) -> String {
        let address = match self.address {
            IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            address => address,
        };
        format!("{}://{}", self.scheme, SocketAddr::new(address, port))
    }
}

/// `ports.json` of a server that runs; forgotten when it is dropped.
#[derive(Debug)]
pub struct TellingPorts {
    _locked: File,
    path: PathBuf,
    process: u32,
}

impl Drop for TellingPorts {
    fn drop(&mut self) {
        // A server that started after this one has written its own.
        let written =
            std::fs::read_to_string(&self.path).ok().and_then(|text| serde_json::from_str::<Ports>(&text).ok());
        if written.is_some_and(|ports| ports.pid == self.process)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::debug!(%error, "ports.json");
        }
    }
}

impl DataFolder {
    /// The folder at `root`, which need not exist yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Creates the folder and those in it.
    ///
    /// # Errors
    /// The folder that could not be made.
    pub fn create(&self) -> Result<()> {
        for folder in [self.root.clone(), self.objects()] {
            std::fs::create_dir_all(&folder).map_err(|error| {
                Error::io(format!("creating {}", folder.display()), error)
                    .with_hint("this user must be able to write there; or choose another folder with --data-dir")
            })?;
        }
        Ok(())
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The embedded metastore.
    pub fn metastore(&self) -> PathBuf {
        self.root.join("metastore.sqlite")
    }

    /// The embedded object store.
    pub fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    /// Files that the server of this folder works on; emptied at its start.
    pub fn spool(&self) -> PathBuf {
        self.root.join("spool")
    }

    /// Files that another process of this host works on: a single role, or a load.
    pub fn spool_of_process(&self, name: &str) -> PathBuf {
        self.root.join(format!("spool-{name}-{}", std::process::id()))
    }

    fn ports_file(&self) -> PathBuf {
        self.root.join("ports.json")
    }

    fn operator_key_file(&self) -> PathBuf {
        self.root.join("operator.key")
    }

    /// Locks the folder for one `up`.
    ///
    /// # Errors
    /// `Conflict` while another runs on it.
    pub fn lock(&self) -> Result<DataFolderLock> {
        DataFolderLock::acquire(&self.root).map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::Conflict => "stop it, or choose another folder with --data-dir",
                _ => "this user must be able to write there; or choose another folder with --data-dir",
            };
            Error::from(error).with_hint(hint)
        })
    }

    /// Empties the server's spool folder, and deletes those of processes that are gone: what a killed process left there belongs
    /// to nobody.
    ///
    /// # Errors
    /// The folder that could not be emptied.
    pub fn clear_spool(&self) -> Result<()> {
        let fail = |error| Error::io(format!("emptying the spool folders of {}", self.root.display()), error);
        for entry in std::fs::read_dir(&self.root).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some(rest) = name.strip_prefix("spool") else { continue };
            let is_alive =
                rest.rsplit_once('-').and_then(|(_, process)| process.parse().ok()).is_some_and(is_process_alive);
            if !is_alive {
                std::fs::remove_dir_all(&path).map_err(fail)?;
            }
        }
        std::fs::create_dir_all(self.spool()).map_err(fail)
    }

    /// Tells commands where the server listens, for as long as what it returns lives. Written at once, so that no reader sees a part.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_ports(&self, ports: &Ports) -> Result<TellingPorts> {
        let path = self.ports_file();
        let fail = |error| Error::io(format!("writing {}", path.display()), error);
        let text = serde_json::to_string_pretty(ports)
            .map_err(|error| Error::caused(ErrorKind::Internal, "ports.json", error))?;
        let part = self.root.join(format!("ports.json.{}", std::process::id()));
        let mut file = File::create(&part).map_err(fail)?;
        file.write_all((text + "\n").as_bytes()).map_err(fail)?;
        // The kernel lets go of it with the process, in whatever way that ends, and in whatever container it had its number.
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| fail(errno.into()))?;
        std::fs::rename(&part, &path).map_err(fail)?;
        Ok(TellingPorts { _locked: file, path, process: ports.pid })
    }

    /// Where the server that runs on this folder listens, if one does.
    pub fn running_server(&self) -> Option<Ports> {
        let mut file = File::open(self.ports_file()).ok()?;
        // A killed process leaves its file behind, but not its lock.
        if flock(&file, FlockOperation::NonBlockingLockShared) != Err(Errno::WOULDBLOCK) {
            return None;
        }
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Whether a whole server ever ran here, whose commands have a key, be it that another user may not read it.
    pub fn has_operator_key(&self) -> bool {
        self.operator_key_file().exists()
    }

    /// The key by which commands on this machine call the server as an operator.
    pub fn operator_key(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.operator_key_file()).ok()?;
        Some(text.trim().to_owned()).filter(|key| !key.is_empty())
    }

    /// Keeps that key, readable by this user only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_operator_key(&self, key: &str) -> Result<()> {
        let path = self.operator_key_file();
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{key}").and_then(|()| file.sync_all()))
            .map_err(|error| Error::io(format!("writing {}", path.display()), error))
    }
}

fn is_process_alive(process: u32) -> bool {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    process.is_some_and(|process| !matches!(test_kill_process(process), Err(Errno::SRCH)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_a_server_that_is_gone_are_not_believed() {
        let temporary = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::new(temporary.path().join("data"));
        folder.create().expect("is created");
        let ports = Ports {
            pid: std::process::id(),
            scheme: "http".to_owned(),
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            api: 1,
            grpc: Some(2),
            http: None,
            certificate: None,
            metastore: None,
        };
        assert_eq!(ports.url(2), "http://127.0.0.1:2");
        let telling = folder.write_ports(&ports).expect("is written");
        assert_eq!(folder.running_server(), Some(ports.clone()));
        // As a killed process leaves it; its number may be another's by now.
        std::fs::copy(folder.ports_file(), temporary.path().join("left")).expect("is copied");
        drop(telling);
        assert_eq!(folder.running_server(), None);
        std::fs::rename(temporary.path().join("left"), folder.ports_file()).expect("is put back");
        assert_eq!(folder.running_server(), None);
        // The next server's is not taken away with the former's.
        let former = folder.write_ports(&Ports { pid: 1, ..ports.clone() }).expect("is written");
        let _telling = folder.write_ports(&ports).expect("is written");
        drop(former);
        assert_eq!(folder.running_server(), Some(ports));
    }

    #[test]
    fn the_operator_key_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let temporary = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::new(temporary.path().to_owned());
        assert_eq!(folder.operator_key(), None);
        folder.write_operator_key("tmop_1").expect("is written");
        assert_eq!(folder.operator_key().as_deref(), Some("tmop_1"));
        let mode = std::fs::metadata(folder.operator_key_file()).expect("exists").permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
}
