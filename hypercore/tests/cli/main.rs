//! The command line from outside: the real binary, its output, its exit codes, and what it leaves on the disk.

#[cfg(unix)]
mod archives;
mod cloning;
mod damage;
mod discovery;
mod doctor;
mod following;
mod forks;
mod identity;
mod keys;
mod kills;
mod liars;
mod looking;
mod lost_peers;
#[cfg(target_os = "linux")]
mod manners;
#[cfg(target_os = "linux")]
mod misplaced;
#[cfg(unix)]
mod originals;
mod page;
mod process;
#[cfg(unix)]
mod readers;
mod reading;
mod refusals;
mod secrets;
mod serving;
#[cfg(unix)]
mod sharing;
mod status;
mod storing;
#[cfg(unix)]
mod streams;
#[cfg(unix)]
mod targets;
