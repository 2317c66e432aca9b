//! How this very program is typed again, so that what it tells people to paste works where they are: `cargo run` leaves no
//! `tidemill` on the search path, and a data folder that is not the default must be named.

use std::path::{Path, PathBuf};

use crate::config::{Config, Origin};

/// The words before a command's own arguments.
#[derive(Debug, Clone)]
pub struct Invocation {
    program: String,
    flags: String,
}

impl Invocation {
    /// For commands on the installation of `config`.
    pub fn new(config: &Config) -> Self {
        let flags = match config.settings.get("data_dir").origin {
            Origin::Default => String::new(),
            _ => format!(" --data-dir {}", quoted(&config.data_dir().display().to_string())),
        };
        Self { program: program(), flags }
    }

    /// `command` as it can be pasted, to be followed by its arguments.
    pub fn command(&self, command: &str) -> String {
        format!("{} {command}{}", self.program, self.flags)
    }
}

fn program() -> String {
    let Ok(own) = std::env::current_exe().and_then(|it| it.canonicalize()) else { return "tidemill".to_owned() };
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join("tidemill")).find(|it| it.is_file());
    let here = std::env::current_dir().and_then(|it| it.canonicalize()).unwrap_or_default();
    shortest(&own, found.and_then(|it| it.canonicalize().ok()), &here)
}

/// `found` is what the shell finds under our name, `here` the folder that people are in.
fn shortest(own: &Path, found: Option<PathBuf>, here: &Path) -> String {
    if found.as_deref() == Some(own) {
        return "tidemill".to_owned();
    }
    let path = match own.strip_prefix(here) {
        // Without a separator a shell would look in its search path.
        Ok(relative) if relative.components().count() == 1 => format!("./{}", relative.display()),
        Ok(relative) => relative.display().to_string(),
        Err(_) => own.display().to_string(),
    };
    quoted(&path)
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+:@,=".contains(character);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_typed_as_the_shell_finds_it() {
        let own = Path::new("/src/mill/target/release/tidemill");
        let typed = |found: Option<&str>, here| shortest(own, found.map(PathBuf::from), Path::new(here));
        assert_eq!(typed(Some("/src/mill/target/release/tidemill"), "/"), "tidemill");
        assert_eq!(typed(Some("/usr/bin/tidemill"), "/src/mill"), "target/release/tidemill");
        assert_eq!(typed(None, "/src/mill/target/release"), "./tidemill");
        assert_eq!(typed(None, "/home"), "/src/mill/target/release/tidemill");
        assert_eq!(quoted("/a b/it's"), "'/a b/it'\\''s'");
    }
}
