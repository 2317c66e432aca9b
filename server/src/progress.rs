//! Progress on stderr: a bar for people at a terminal, a plain line now and then otherwise.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::config::format_bytes;
use crate::output::say;

/// The progress of one long thing.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    what: String,
    total: u64,
    done: AtomicU64,
    /// Tenths already told in plain lines.
    told: AtomicU64,
    unit: Unit,
    bar: Option<ProgressBar>,
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Bytes,
    Items,
}

impl Progress {
    /// Progress over `total` bytes.
    pub fn bytes(what: &str, total: u64) -> Self {
        Self::new(what, total, Unit::Bytes)
    }

    /// Progress over `total` things.
    pub fn items(what: &str, total: u64) -> Self {
        Self::new(what, total, Unit::Items)
    }

    fn new(what: &str, total: u64, unit: Unit) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let counts = match unit {
                Unit::Bytes => "{bytes}/{total_bytes} {bytes_per_sec} {eta}",
                Unit::Items => "{pos}/{len} {eta}",
            };
            let style = ProgressStyle::with_template(&format!("{{msg:20}} [{{bar:30}}] {counts}"))
                .expect("the template is a constant")
                .progress_chars("=> ");
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()).with_style(style);
            bar.set_message(what.to_owned());
            bar
        });
        let shared =
            Shared { what: what.to_owned(), total, done: AtomicU64::new(0), told: AtomicU64::new(0), unit, bar };
        Self(Arc::new(shared))
    }

    /// `amount` more is done.
    pub fn add(&self, amount: u64) {
        self.set(self.0.done.fetch_add(amount, Ordering::Relaxed) + amount);
    }

    /// `done` is done.
    pub fn set(&self, done: u64) {
        self.0.done.store(done, Ordering::Relaxed);
        match &self.0.bar {
            Some(bar) => bar.set_position(done),
            None => self.tell(done),
        }
    }

    /// All is done, or given up.
    pub fn finish(&self) {
        if let Some(bar) = &self.0.bar {
            bar.finish();
        }
    }

    /// A line at each tenth, so that a log is not filled.
    fn tell(&self, done: u64) {
        let tenths = done.saturating_mul(10).checked_div(self.0.total).unwrap_or(10);
        if self.0.told.fetch_max(tenths, Ordering::Relaxed) < tenths {
            let show = |amount: u64| match self.0.unit {
                Unit::Bytes => format_bytes(amount),
                Unit::Items => amount.to_string(),
            };
            say!("{}: {} of {}", self.0.what, show(done), show(self.0.total));
        }
    }
}
