//! `hypercore resume`: lets a copied or restored core be appended to again.

use futures_lite::future;
use hypercore::Error;

use crate::{
    args::{Manners, ResumeArgs},
    commands::{close, open, require_writable},
    errors::{Exit, Failure, Result},
    output::{Output, blocks},
    signals::Signals,
    sources::Sources,
};

pub(crate) async fn resume(args: ResumeArgs, manners: &Manners) -> Result<()> {
    let ResumeArgs {
        dir,
        mut from,
        more,
        accept_fork_risk,
        format,
    } = args;
    from.extend(more);
    let signals = Signals::catch().map_err(|error| Failure::failed(error.to_string()))?;
    let core = open(&dir).await?;
    let failed = |error| Failure::core(error, &dir);
    match core.check_writable() {
        Ok(()) | Err(Error::AppendLocked(_)) => {}
        // Perhaps peers have what is damaged.
        Err(_) if core.append_lock().is_some() && !accept_fork_risk => {}
        Err(error) => return Err(failed(error)),
    }
    let before = core.length();
    let resumed = if accept_fork_risk {
        core.accept_fork_risk().await.map_err(failed)
    } else {
        let fetch = async {
            let sources = Sources::call(&core, &from).await?;
            let resumed = core.resume().await.map(drop).map_err(failed);
            sources.end().await;
            resumed
        };
        let stop = async {
            signals.stopped().await;
            let dir = dir.display();
            let words = format!(
                "interrupted before all that peers have of `{dir}` was fetched, and nothing is \
                 appended to it yet; run it again to go on"
            );
            Err(Failure::new(Exit::Incomplete, words))
        };
        future::or(stop, fetch).await
    };
    let was_damaged = core.recovery().is_some_and(|found| found.damage.is_some());
    close(&core, &dir).await?;
    resumed?;
    if was_damaged {
        // Opening finds out whether it is whole now.
        let core = open(&dir).await?;
        let writable = require_writable(&core, &dir);
        close(&core, &dir).await?;
        writable?;
    }
    let length = core.length();
    let fetched = length.saturating_sub(before);
    Output::new(&format, manners).result(
        &[
            ("length", length.into()),
            ("byteLength", core.byte_length().into()),
            ("fetched", fetched.into()),
            ("writable", true.into()),
        ],
        format_args!(
            "Fetched {}; the core has {} and can be appended to.",
            blocks(fetched),
            blocks(length)
        ),
    )
}
