//! The documents claim only what exists: paths are in the tree, commands and flags in the binary's own help, and `docs/` is
//! what its links say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("server/ lies in the tree").to_owned()
}

/// README.md and its like, and everything in `docs/`.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![tree().join("docs")];
    let mut paths: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| tree().join(name)).into();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    for path in paths.into_iter().filter(|path| path.exists()) {
        let text = std::fs::read_to_string(&path).expect("UTF-8");
        found.push((path, text));
    }
    assert!(!found.is_empty(), "no document found");
    found
}

/// `code` between back ticks on one line, and the lines of fenced blocks.
fn code(text: &str) -> (Vec<String>, Vec<String>) {
    let (mut inline, mut fenced) = (Vec::new(), Vec::new());
    let mut is_fenced = false;
    let mut continued = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if is_fenced {
            match line.strip_suffix('\\') {
                Some(part) => continued.push_str(part),
                None => fenced.push(std::mem::take(&mut continued) + line),
            }
        } else {
            inline.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    (inline, fenced)
}

#[test]
fn paths_and_links_exist() {
    let tree = tree();
    let top: Vec<String> = std::fs::read_dir(&tree)
        .expect("the tree")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    let mut missing = Vec::new();
    for (path, text) in documents() {
        let folder = path.parent().expect("a folder");
        for word in code(&text).0 {
            let first = word.split('/').next().unwrap_or_default();
            let is_path = word.contains('/') && top.iter().any(|name| name == first);
            let is_pattern = word.contains(['*', '<', '{', ' ', '…', '$']);
            if is_path && !is_pattern && !tree.join(word.trim_start_matches("./")).exists() {
                missing.push(format!("{}: `{word}`", path.display()));
            }
        }
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                missing.push(format!("{}: ({link})", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "named in documents, not in the tree:\n{}", missing.join("\n"));
}

#[test]
fn commands_and_flags_exist() {
    let mut help = Help::default();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, text) in documents() {
        let (inline, fenced) = code(&text);
        for line in inline.iter().chain(&fenced) {
            for arguments in command_lines(line) {
                seen += 1;
                if let Err(problem) = help.check(&arguments) {
                    wrong.push(format!("{}: `{}`: {problem}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(seen > 0, "the documents name no command: this test looks in the wrong place");
    assert!(wrong.is_empty(), "named in documents, not in the binary:\n{}", wrong.join("\n"));
}

/// The arguments of every call of the binary in a line of shell.
fn command_lines(line: &str) -> Vec<Vec<String>> {
    let line = line.trim().trim_start_matches("$ ");
    let line = line.split(" # ").next().unwrap_or_default();
    line.split(['|', ';', '&', '('])
        .filter_map(|part| {
            let words: Vec<&str> = part.split_whitespace().collect();
            let begin = words.iter().position(|word| !word.contains('='))?;
            let words = &words[begin..];
            let rest = match words {
                ["tidemill" | "./tidemill" | "target/release/tidemill", rest @ ..] => rest,
                ["cargo", "run", rest @ ..] => {
                    let dashes = rest.iter().position(|word| *word == "--")?;
                    &rest[dashes + 1..]
                }
                _ => return None,
            };
            Some(rest.iter().map(|word| (*word).to_owned()).collect())
        })
        .collect()
}

/// The binary's own help, asked once for every command.
#[derive(Default)]
struct Help {
    known: BTreeMap<Vec<String>, Option<String>>,
}

impl Help {
    fn of(&mut self, command: &[String]) -> Option<String> {
        let ask = || {
            let output =
                Command::new(env!("CARGO_BIN_EXE_tidemill")).args(command).arg("--help").output().expect("it starts");
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        self.known.entry(command.to_vec()).or_insert_with(ask).clone()
    }

    fn check(&mut self, arguments: &[String]) -> Result<(), String> {
        let mut command: Vec<String> = Vec::new();
        let is_word =
            |word: &&String| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
        for word in arguments.iter().take_while(is_word) {
            let here = self.of(&command).ok_or("no help")?;
            // A positional argument ends the names of commands.
            let is_listed = here.lines().any(|line| line.trim_start().split([' ', ',']).next() == Some(word));
            if !is_listed {
                if here.contains("Commands:") {
                    return Err(format!("no command {word:?}"));
                }
                break;
            }
            command.push(word.clone());
        }
        let help = self.of(&command).ok_or_else(|| format!("no command {command:?}"))?;
        for flag in arguments.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
            let flag = flag.split(['=', ']', ',', '`']).next().unwrap_or_default();
            let is_known = help.split([' ', ',', '\n', '=', '[', '<']).any(|word| word == flag);
            if !is_known {
                return Err(format!("{} has no flag {flag}", command.join(" ")));
            }
        }
        Ok(())
    }
}
