//! Live interoperability with Node's Hypercore 9.12.0: directories that both open, and connections between both.
//!
//! Needs `node`, and the packages that `.ci/interop` installs (`../node/package.json`). Every process is one of ours
//! or one of Node's, is started by a [`stage::Stage`], and talks in lines of JSON; a test that fails prints what
//! each of them said.

/// Arguments of a process: texts and paths.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { [$(std::ffi::OsString::from($arg)),*] };
}

mod blocks;
mod differential;
mod directories;
mod files;
mod library;
mod lies;
mod locks;
mod mesh;
mod peers;
mod repairs;
mod stage;
mod static_logs;
mod wire;
