//! Damage that is found while blocks are sent to peers, told in words for people, and each of it once: peers
//! ask for the same block again and again.
//!
//! The library tells its log of it, as there is no caller to whom it could return an error.

use std::{
    collections::HashSet,
    fmt::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use tracing::{Event, Level, Metadata, Subscriber, field::Field};
use tracing_subscriber::layer::{Context, Layer};

use crate::{
    errors::{bare, quoted},
    output,
};

/// Where the library says that what it was to send is damaged.
const PLACE: &str = "hypercore::replicate::answer";

/// So much damage is told one by one. Whoever has more knows what to do by then.
const TOLD: usize = 10;

static DIR: OnceLock<PathBuf> = OnceLock::new();

/// From now on damage is that of the core in `dir`, of which peers are sent blocks.
pub(crate) fn watch_over(dir: &Path) {
    // A process serves one core.
    let _ = DIR.set(dir.to_owned());
}

/// Whether a line of the log is told in words for people.
pub(crate) fn is_told(metadata: &Metadata<'_>) -> bool {
    metadata.target() == PLACE && *metadata.level() == Level::ERROR
}

#[derive(Debug, Default)]
pub(crate) struct Alarm {
    told: Mutex<HashSet<String>>,
}

impl<S: Subscriber> Layer<S> for Alarm {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !is_told(event.metadata()) {
            return;
        }
        let mut damage = Damage::default();
        event.record(&mut damage);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TOLD || !told.insert(damage.0.clone()) {
            return;
        }
        let words = bare(&damage.0);
        output::alarm(match DIR.get() {
            Some(dir) => format!(
                "the core in `{}` is damaged: {words}; that is not sent to peers; stop this and run \
                 `hypercore repair {}`, which with --connect ADDR:PORT fetches false blocks from a peer",
                dir.display(),
                quoted(dir)
            ),
            None => format!("the core is damaged: {words}; that is not sent to peers"),
        });
    }
}

/// What is damaged.
#[derive(Debug, Default)]
struct Damage(String);

impl tracing::field::Visit for Damage {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "error" {
            // A String takes everything.
            let _ = write!(self.0, "{value:?}");
        }
    }
}
