//! `tidemill apply`: objects as manifests say, with what a cluster knows mapped to what is here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use http::Method;
use serde_json::{Value, json};
use tidemill_fleet::objects::{Kind, kind_of};

use super::manifest::{Manifest, read};
use super::{Client, NamespaceOptions, path_of, print_object, reference, text, yaml};
use crate::cli::GlobalOptions;
use crate::error::{Error, Result};
use crate::http::APPLIED_HEADER;
use crate::output::{Output, print_text, say};

/// The name under which mappings from the command line are kept.
const MAPPING: &str = "local";

/// Options of `apply`.
#[derive(Debug, Args)]
#[command(
    after_help = "An image is mapped to the command that runs for it, a host that only a cluster knows to an address. Mappings stay: later \
applications and restarts know them. A file of them is YAML: images: {NAME: COMMAND}, hosts: {NAME: ADDRESS}.

Examples:
  tidemill apply -f deployment.yaml --image web:latest='./web --port 8000'
  tidemill apply -f manifests/ --host db=127.0.0.1:5433 --mapping local.yaml
  kustomize build . | tidemill apply -f -"
)]
pub struct ApplyOptions {
    /// A manifest, a folder of them, or - for standard input; repeatable
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What runs for an image; repeatable
    #[arg(long = "image", value_name = "NAME=COMMAND")]
    images: Vec<String>,
    /// Where a host that only a cluster knows is; repeatable
    #[arg(long = "host", value_name = "NAME=ADDRESS")]
    hosts: Vec<String>,
    /// A file of images and hosts
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,
    /// Say what would be done: client, or server, which checks it too
    #[arg(long, value_name = "client|server", value_parser = ["client", "server", "none"], default_value = "none", hide_default_value = true)]
    dry_run: String,
    #[command(flatten)]
    namespace: NamespaceOptions,
}

/// Runs it.
///
/// # Errors
/// Everything that was not applied, at once; what could be applied was.
pub async fn run(global: &GlobalOptions, client: Client, options: ApplyOptions) -> Result<()> {
    let manifests = read(&options.files)?;
    let mapping = mapping(&options)?;
    let mut problems = Vec::new();
    if let Some(spec) = mapping.filter(|_| options.dry_run == "none") {
        let object =
            json!({"apiVersion": "tidemill.dev/v1", "kind": "Mapping", "metadata": {"name": MAPPING}, "spec": spec});
        client.merge_mapping(&object).await?;
    }
    let mut applied = Vec::new();
    for manifest in &manifests {
        match apply_one(&client, &options, manifest).await {
            Ok((kind, object, word)) => {
                let dry = match options.dry_run.as_str() {
                    "client" => " (dry run)",
                    "server" => " (server dry run)",
                    _ => "",
                };
                if global.output == Output::Table {
                    print_text(&format!("{} {word}{dry}\n", reference(kind, text(&object, "/metadata/name"))))?;
                } else {
                    print_object(global.output, kind, &object)?;
                }
                applied.push(object);
            }
            Err(error) => problems.push(format!("{}: {}", manifest.file, error.full_message())),
        }
    }
    if options.dry_run != "client" {
        tell_missing(&client, &applied).await?;
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::invalid(problems.join("\n"))) }
}

async fn apply_one(
    client: &Client,
    options: &ApplyOptions,
    manifest: &Manifest,
) -> Result<(&'static Kind, Value, String)> {
    let mut object = manifest.object.clone();
    let (version, kind_name) = (text(&object, "/apiVersion").to_owned(), text(&object, "/kind").to_owned());
    let kind = kind_of(&version, &kind_name)
        .ok_or_else(|| Error::invalid(format!("no matches for kind {kind_name:?} in version {version:?}")))?;
    let name = text(&object, "/metadata/name").to_owned();
    if name.is_empty() {
        return Err(Error::invalid(format!("{kind_name}: metadata.name is missing")));
    }
    let namespace = namespace_of(&mut object, kind, options)?;
    if options.dry_run == "client" {
        let word = match client.get(kind, &namespace, &name).await {
            Ok(_) => "configured",
            Err(error) if error.kind() == tidemill_types::ErrorKind::NotFound => "created",
            Err(error) => return Err(error),
        };
        return Ok((kind, object, word.to_owned()));
    }
    let query: &[(&str, &str)] = if options.dry_run == "server" {
        &[("dryRun", "All"), ("fieldManager", "tidemill")]
    } else {
        &[("fieldManager", "tidemill")]
    };
    let path = path_of(kind, Some(&namespace), Some(&name));
    let response = client.send(Method::PATCH, &path, query, Some(("application/apply-patch+yaml", &object))).await?;
    let word =
        response.headers().get(APPLIED_HEADER).and_then(|word| word.to_str().ok()).unwrap_or("configured").to_owned();
    let stored = response.json().await.map_err(|_| super::strange())?;
    Ok((kind, stored, word))
}

/// The namespace that the manifest says, or else the flag.
fn namespace_of(object: &mut Value, kind: &Kind, options: &ApplyOptions) -> Result<String> {
    if !kind.is_namespaced {
        return Ok(String::new());
    }
    let written = text(object, "/metadata/namespace").to_owned();
    match &options.namespace.namespace {
        Some(asked) if !written.is_empty() && *asked != written => {
            Err(Error::invalid(format!("the manifest says namespace {written:?} and the command line {asked:?}")))
        }
        asked => {
            let name = if written.is_empty() { asked.as_deref().unwrap_or("default").to_owned() } else { written };
            if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.insert("namespace".to_owned(), json!(name));
            }
            Ok(name)
        }
    }
}

/// Images and hosts of the command line and of its file; `None` where there are none.
fn mapping(options: &ApplyOptions) -> Result<Option<Value>> {
    let here = std::env::current_dir().map_err(|error| Error::io("finding the working directory", error))?;
    let (mut images, mut hosts) = (BTreeMap::new(), BTreeMap::new());
    if let Some(path) = &options.mapping {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| Error::io(shown.clone(), error))?;
        let documents = yaml::documents(&text).map_err(|problem| Error::invalid(format!("{shown}: {problem}")))?;
        // Commands of a file are meant from where the file is.
        let folder = here.join(path).parent().map_or_else(|| here.clone(), Path::to_owned);
        for document in documents {
            let Value::Object(sections) = document else {
                return Err(Error::invalid(format!("{shown}: is no mapping of images and hosts")));
            };
            for (section, members) in sections {
                let Value::Object(members) = members else {
                    return Err(Error::invalid(format!("{shown}: {section} is no mapping")));
                };
                for (name, target) in members {
                    let Value::String(target) = target else {
                        return Err(Error::invalid(format!("{shown}: {section}.{name} is no text")));
                    };
                    match section.as_str() {
                        "images" => images.insert(name, located(&target, &folder)),
                        "hosts" => hosts.insert(name, target),
                        other => return Err(Error::invalid(format!("{shown}: {other} is neither images nor hosts"))),
                    };
                }
            }
        }
    }
    for word in &options.images {
        let (name, command) = pair("--image", "NAME=COMMAND", word)?;
        images.insert(name, located(&command, &here));
    }
    for word in &options.hosts {
        let (name, address) = pair("--host", "NAME=ADDRESS", word)?;
        hosts.insert(name, address);
    }
    Ok((!images.is_empty() || !hosts.is_empty()).then(|| json!({"images": images, "hosts": hosts})))
}

fn pair(flag: &str, form: &str, word: &str) -> Result<(String, String)> {
    match word.split_once('=') {
        Some((name, target)) if !name.is_empty() && !target.trim().is_empty() => {
            Ok((name.to_owned(), target.trim().to_owned()))
        }
        _ => Err(Error::invalid(format!("{flag} {word:?}: expected {form}"))),
    }
}

/// A command whose words that name files here are whole paths, because the server runs elsewhere.
fn located(command: &str, folder: &Path) -> String {
    let words = tidemill_fleet::control::split_words(command);
    let one = |(index, word): (usize, &String)| {
        let path = folder.join(word);
        let is_path = word.contains('/') && !word.starts_with(['/', '-']) && !word.contains("://");
        let is_file = (is_path || index > 0) && !word.starts_with(['/', '-']) && path.is_file();
        let named = if is_file { path.display().to_string() } else { word.clone() };
        let is_plain =
            named.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+$(){}".contains(c)) && !named.is_empty();
        if is_plain { named } else { format!("'{}'", named.replace('\'', "'\"'\"'")) }
    };
    words.iter().enumerate().map(one).collect::<Vec<_>>().join(" ")
}

/// Everything that replicas of what was applied would miss, once.
async fn tell_missing(client: &Client, applied: &[Value]) -> Result<()> {
    let mut all = std::collections::BTreeSet::new();
    for object in applied {
        let found =
            client.ask(Method::POST, "/apis/tidemill.dev/v1/missing", &[], Some(("application/json", object))).await?;
        let lines = found.as_array().cloned().unwrap_or_default();
        all.extend(lines.iter().filter_map(Value::as_str).map(ToOwned::to_owned));
    }
    if !all.is_empty() {
        say!("replicas wait for what is missing:");
        all.iter().for_each(|line| say!("  {line}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_command_are_named_from_everywhere() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("run.py"), "").expect("a file");
        let root = folder.path().display();
        assert_eq!(located("./run.py --port 1", folder.path()), format!("{root}/./run.py --port 1"));
        assert_eq!(located("python3 run.py", folder.path()), format!("python3 {root}/run.py"));
        // A program of PATH stays one, and what is no file stays as it is.
        assert_eq!(located("run.py 'a b' $(POD_IP)", folder.path()), "run.py 'a b' $(POD_IP)");
    }

    #[test]
    fn a_pair_needs_both_sides() {
        assert!(pair("--host", "NAME=ADDRESS", "db").is_err() && pair("--host", "NAME=ADDRESS", "db=").is_err());
        assert_eq!(
            pair("--image", "NAME=COMMAND", "a:1=x --b=c").expect("a pair"),
            ("a:1".to_owned(), "x --b=c".to_owned())
        );
    }
}
