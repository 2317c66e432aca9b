//! This installation's own roles as workloads of its fleet, scaled as the values of Lakerunner's chart say.

use serde_json::{Value, json};
use tidemill_fleet::objects::{LabelSelector, Object, find_kind};
use tidemill_fleet::{Fleet, Propagation};
use tidemill_scaling::manifest::Problem;
use tidemill_scaling::manifest::chart::{self, MANAGED_BY, MODES, Role};

use super::from_fleet;
use crate::config::{Config, KEYS, Origin};
use crate::error::{Error, Result};

/// Where they live.
pub const NAMESPACE: &str = "tidemill";
/// Holds the settings of the replicas, some of which are secret.
const SETTINGS: &str = "tidemill-settings";
/// Kinds that are made, the ones that decide first.
const KINDS: [&str; 4] = ["HorizontalPodAutoscaler", "ScaledObject", "Deployment", "Secret"];
/// Sections of the configuration that say nothing to a worker.
const NOT_TOLD: [&str; 6] = ["listen.", "fleet.", "notify.", "roles.", "tls.", "auth."];

/// The roles that are workloads; `None` where this process performs the work itself.
///
/// # Errors
/// A file that cannot be read; every problem of the values.
pub fn read(config: &Config) -> Result<Option<Vec<Role>>> {
    let mode = MODES.iter().find(|(word, _)| *word == config.settings.text("roles.autoscaling")).map(|(_, mode)| *mode);
    let path = config.path("roles.values");
    if mode.is_none() && path.is_none() {
        return Ok(None);
    }
    if !config.flag("fleet.enabled") {
        return Err(Error::invalid("roles.values and roles.autoscaling need a fleet: set fleet.enabled=true"));
    }
    let (name, text) = match &path {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| Error::io(format!("reading {} (roles.values)", path.display()), error))?;
            (path.display().to_string(), text)
        }
        None => ("roles.autoscaling".to_owned(), String::new()),
    };
    chart::read(&name, &text, mode).map(Some).map_err(|problems| {
        let one =
            |problem: &Problem| format!("{}:{}: {}: {}", problem.file, problem.line, problem.path, problem.message);
        Error::invalid(problems.iter().map(one).collect::<Vec<_>>().join("\n"))
    })
}

/// The objects of the roles.
///
/// # Errors
/// Where this program lies cannot be found out.
pub fn objects(config: &Config, roles: &[Role]) -> Result<Vec<Value>> {
    let program = std::env::current_exe().map_err(|error| Error::io("finding this program", error))?;
    let folder = std::env::current_dir().map_err(|error| Error::io("finding the working directory", error))?;
    let mut settings = serde_json::Map::new();
    for key in KEYS.iter().filter(|key| !NOT_TOLD.iter().any(|section| key.name.starts_with(section))) {
        let setting = config.settings.get(key.name);
        if setting.origin != Origin::Default {
            settings.insert(key.environment(), json!(setting.text));
        }
    }
    let data_dir = std::path::absolute(config.data_dir()).map_err(|error| Error::io("the data folder", error))?;
    settings.insert("TIDEMILL_DATA_DIR".to_owned(), json!(data_dir));
    let labels = json!({MANAGED_BY.0: MANAGED_BY.1});
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": settings,
        "metadata": {"name": SETTINGS, "namespace": NAMESPACE, "labels": labels},
    })];
    for role in roles {
        let command = ["worker", "--signal", role.signal, "--action", role.action, "--api-port", "0"];
        let command: Vec<String> =
            std::iter::once(program.display().to_string()).chain(command.map(ToOwned::to_owned)).collect();
        let container = json!({
            "name": "worker", "image": "tidemill", "command": command, "workingDir": folder,
            "envFrom": [{"secretRef": {"name": SETTINGS}}],
        });
        objects.extend(role.objects(NAMESPACE, &container));
    }
    Ok(objects)
}

/// Makes the fleet have exactly these objects of the roles.
///
/// # Errors
/// Those of the fleet.
pub async fn apply(fleet: &Fleet, objects: Vec<Value>) -> Result<()> {
    let mut wanted = Vec::new();
    for object in objects {
        let object: Object = serde_json::from_value(object)
            .map_err(|error| Error::new(tidemill_types::ErrorKind::Internal, error.to_string()))?;
        wanted.push(object.key());
        fleet.apply(object, false).await.map_err(|error| from_fleet(&error))?;
    }
    let own = LabelSelector::equal(&[(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into());
    for kind in KINDS.iter().filter_map(|kind| find_kind(kind)) {
        for object in fleet.list(kind, Some(NAMESPACE), &own).objects {
            if !wanted.contains(&object.key()) {
                fleet.delete(&object.key(), Propagation::Cascade, None).await.map_err(|error| from_fleet(&error))?;
            }
        }
    }
    Ok(())
}
