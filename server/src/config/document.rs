//! `docs/config.md`, written from the registry so that it cannot say anything else.

use super::registry::KEYS;

const HEAD: &str = "# Configuration

Every key can be set in a TOML file (`--config FILE`, `TIDEMILL_CONFIG`, or `tidemill.toml` in the working directory), by an
environment variable, or by `--set key=value`. The later wins: defaults, file, environment, flags. An unknown key or a value of
the wrong shape is refused, all problems at once. `tidemill config show` prints the merged values and where each comes from.

```toml
[listen]
address = \"0.0.0.0\"

[metastore]
url = \"postgres://tidemill:secret@db.example.com/tidemill\"

[storage]
url = \"s3://telemetry\"
region = \"eu-west-3\"
```
";

/// The whole document.
pub fn render_document() -> String {
    let mut text = HEAD.to_owned();
    let mut section = "";
    for key in KEYS {
        let of_key = key.name.split_once('.').map_or("general", |(section, _)| section);
        if of_key != section {
            section = of_key;
            text.push_str(&format!("\n## {section}\n\n| key | value | default | meaning |\n|---|---|---|---|\n"));
        }
        let default = if key.default.is_empty() { "unset".to_owned() } else { format!("`{}`", key.default) };
        text.push_str(&format!(
            "| `{}`<br>`{}` | {} | {default} | {} |\n",
            key.name,
            key.environment(),
            key.kind.describe(),
            key.help
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `TIDEMILL_REWRITE=1 cargo test -p tidemill` rewrites the document instead.
    #[test]
    fn the_document_is_what_the_registry_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config.md");
        if std::env::var_os("TIDEMILL_REWRITE").is_some() {
            std::fs::write(path, render_document()).expect("docs is writable");
        }
        let written = std::fs::read_to_string(path).expect("docs/config.md exists");
        assert!(
            written == render_document(),
            "docs/config.md differs from the registry; rewrite it with TIDEMILL_REWRITE=1"
        );
    }
}
