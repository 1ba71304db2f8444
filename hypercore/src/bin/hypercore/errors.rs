//! What is said when something cannot be done, and the exit code that goes with it.

use std::{fmt, fs, io, path::Path};

use hypercore::{AppendLock, Corruption, Error, PublicKey, merkle, storage, wire};

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// What there is to do about two histories, of which readers have one each.
pub(crate) const NO_REMEDY: &str = "nothing can join the two again: whoever writes it makes a new \
    core, and gives its readers the new key";

/// What there is to do about a public key that is not there.
const KEY_CURE: &str =
    "put the file `key` back from a backup: it has the 32 bytes of the public key";

/// How a command ended, if not well. The numbers are what scripts see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Failed = 1,
    Usage = 2,
    Damaged = 3,
    Forked = 4,
    Locked = 5,
    Incomplete = 6,
}

/// Why a command did not do what it was asked to.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    is_lonely: bool,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            is_lonely: false,
        }
    }

    /// The same, and more to know about it.
    pub(crate) fn and(mut self, words: &str) -> Self {
        self.message += "; ";
        self.message += words;
        self
    }

    /// All that is wrong is that nobody was there who could be asked.
    pub(crate) fn lonely(mut self) -> Self {
        self.is_lonely = true;
        self
    }

    pub(crate) fn is_lonely(&self) -> bool {
        self.is_lonely
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub(crate) fn code(&self) -> i32 {
        self.exit as i32
    }

    /// Standard output cannot be written to.
    pub(crate) fn output(error: &io::Error) -> Self {
        Self::failed(format!(
            "standard output cannot be written to: {}",
            reason(error)
        ))
    }

    /// Two histories were found, of which the proof is in `dir`, if there is one.
    pub(crate) fn forked(length: u64, dir: Option<&Path>) -> Self {
        let mut words = "the writer of this core has signed two histories".to_owned();
        if let Some(dir) = dir {
            let dir = dir.display();
            words += &format!(
                "; the proof is in `{dir}/fork-proof-{length}`, and what `{dir}` had before is still there"
            );
        }
        words += "; ";
        words += NO_REMEDY;
        Self::new(Exit::Forked, words)
    }

    /// What the library said when the core in `dir` was to be repaired.
    pub(crate) fn repair(error: Error, dir: &Path) -> Self {
        match error.cause() {
            cause if is_of_key(cause) => Self::without_key(dir),
            // The secret key would show whether the public one is true.
            Error::Corrupt(Corruption::Signature { .. }) if !has_secret(dir) => Self::new(
                Exit::Damaged,
                format!(
                    "the core in `{}` cannot be repaired: {}, which may also be because the file `key` \
                     is damaged; put that back from a backup, or make another copy of what peers have \
                     with `hypercore clone KEY OTHERDIR --connect ADDR:PORT`",
                    dir.display(),
                    damage(error.cause()),
                ),
            ),
            cause if cause.is_corruption() || matches!(cause, Error::Merkle(_)) => Self::new(
                Exit::Damaged,
                format!(
                    "the core in `{}` cannot be repaired: {}; {}",
                    dir.display(),
                    damage(cause),
                    how_to_replace(dir),
                ),
            ),
            _ => Self::core(error, dir),
        }
    }

    /// The file `key` in `dir` is not whole, and nothing else says what is to be in it.
    fn without_key(dir: &Path) -> Self {
        let damage = match size(dir, "key") {
            Some(len @ 1..32) => format!("the file `key` has {len} bytes instead of 32"),
            _ => damage(&Error::Corrupt(Corruption::KeyMissing)),
        };
        let words = format!(
            "the core in `{}` is damaged: {damage}; {KEY_CURE}",
            dir.display()
        );
        Self::new(Exit::Damaged, words)
    }

    /// What the library said about the core in `dir`.
    pub(crate) fn core(error: Error, dir: &Path) -> Self {
        Self::core_ref(&error, dir)
    }

    /// The same, for whoever does not own the error.
    pub(crate) fn core_ref(error: &Error, dir: &Path) -> Self {
        // Appends are grouped, and share the error that befell all of them.
        Self::sentence(error.cause(), dir)
    }

    /// The one table of messages.
    fn sentence(error: &Error, place: &Path) -> Self {
        let (dir, quoted) = (place.display(), quoted(place));
        match error {
            error if error.is_locked() => Self::new(
                Exit::Locked,
                format!(
                    "the core in `{dir}` is in use by another process; stop that one first, or ask \
                     it with `hypercore stats {quoted}` if it serves or clones"
                ),
            ),
            Error::NoCore => Self::failed(format!(
                "there is no core in `{dir}`; check the path, or make one with `hypercore create \
                 {quoted}`"
            )),
            Error::CoreExists(key) => Self::failed(format!(
                "there is a core in `{dir}` already, with the key {key}; choose another directory"
            )),
            Error::OtherCore { stored, requested } => Self::failed(format!(
                "`{dir}` holds another core: its key is {stored}, not {requested}; choose another \
                 directory"
            )),
            Error::NotWritable if is_secret_lost(place) => Self::failed(format!(
                "the core in `{dir}` is read-only now: {}",
                how_to_replace_secret(place)
            )),
            Error::NotWritable => Self::failed(format!(
                "the core in `{dir}` is read-only: its secret key is not there; append where the \
                 core was made"
            )),
            Error::AppendLocked(lock @ AppendLock::Forked { .. }) => Self::new(
                Exit::Forked,
                format!(
                    "nothing is appended to the core in `{dir}`, because {}; {NO_REMEDY}",
                    why(lock)
                ),
            ),
            Error::AppendLocked(lock) => Self::new(
                match lock {
                    AppendLock::Other { .. } => Exit::Forked,
                    _ => Exit::Failed,
                },
                format!(
                    "nothing is appended to the core in `{dir}`, because {}; `hypercore resume \
                     {quoted} --from ADDR:PORT` fetches what is missing from a peer, and \
                     --accept-fork-risk goes on from here",
                    why(lock)
                ),
            ),
            Error::Guard { file, source } => Self::failed(format!(
                "the file `{file}` that guards the core in `{dir}`: {}; {}",
                reason(source),
                advice(source)
            )),
            Error::Merkle(merkle::Error::BlockTooLarge { size, max }) => Self::failed(format!(
                "a block of {size} bytes is too large: {max} bytes are the limit; cut it with \
                 --file and --block-size"
            )),
            Error::Storage(storage::Error::Io { file, source, .. }) => Self::failed(format!(
                "the file `{file}` of the core in `{dir}`: {}; {}",
                reason(source),
                advice(source)
            )),
            Error::Corrupt(Corruption::KeyMissing) => Self::without_key(place),
            // The public key is the half of a secret one.
            error if is_of_key(error) && !has_secret(place) => Self::without_key(place),
            // Nodes and signatures that come from our own files and make no tree are damage, too.
            error if error.is_corruption() || matches!(error, Error::Merkle(_)) => Self::new(
                Exit::Damaged,
                format!(
                    "the core in `{dir}` is damaged: {}; {}",
                    damage(error),
                    how_to_cure(false, place)
                ),
            ),
            error => Self::failed(format!("the core in `{dir}`: {error}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What is damaged, to follow on the words that something is.
fn damage(error: &Error) -> String {
    bare(&error.to_string()).to_owned()
}

/// What is damaged, of the words that the library has for it.
pub(crate) fn bare(words: &str) -> &str {
    words.strip_prefix("the core is damaged: ").unwrap_or(words)
}

/// Whether an error is that the public key is not there, or not all of it.
pub(crate) fn is_of_key(error: &Error) -> bool {
    use storage::{Error::Corrupt, FileName::Key};
    matches!(
        error.cause(),
        Error::Corrupt(Corruption::KeyMissing) | Error::Storage(Corrupt { file: Key, .. })
    )
}

/// What there is to do about damage in `dir`, which `is_of_key`, or is not.
pub(crate) fn how_to_cure(is_of_key: bool, dir: &Path) -> String {
    if is_of_key && !has_secret(dir) {
        return KEY_CURE.into();
    }
    format!(
        "`hypercore repair {}` puts right what can be, and with --connect ADDR:PORT fetches false \
         blocks from a peer",
        quoted(dir)
    )
}

fn size(dir: &Path, file: &str) -> Option<u64> {
    let metadata = fs::metadata(dir.join(file)).ok();
    metadata.map(|metadata| metadata.len())
}

fn has_secret(dir: &Path) -> bool {
    size(dir, "secret_key").is_some_and(|len| len > 0)
}

/// Whether the core in `dir` was written there, or where its files come from, and cannot be any more.
pub(crate) fn is_secret_lost(dir: &Path) -> bool {
    !has_secret(dir) && size(dir, "fork-guard").is_some_and(|len| len > 0)
}

/// To follow on the words that nothing can be appended in `dir`.
pub(crate) fn how_to_replace_secret(dir: &Path) -> String {
    let state = match size(dir, "secret_key") {
        Some(_) => "empty",
        None => "gone",
    };
    format!(
        "blocks were signed in it, and the file `secret_key` is {state}; put that back from a backup, or \
         with `hypercore keys import FILE {}` the key pair that `hypercore keys export` wrote",
        quoted(dir)
    )
}

/// Where a core comes from that cannot be repaired in `dir`.
pub(crate) fn how_to_replace(dir: &Path) -> String {
    let key = fs::read(dir.join("key")).ok();
    let key = key.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let key = key.map_or_else(|| "KEY".into(), |key| PublicKey::from(key).to_string());
    let mut words = format!(
        "put the damaged file back from a backup, or make another copy of what peers have with \
         `hypercore clone {key} OTHERDIR --connect ADDR:PORT`"
    );
    let secret = dir.join("secret_key");
    if secret.exists() {
        words += &format!(
            "; keep `{}`: nobody can append without it",
            secret.display()
        );
    }
    words
}

/// Why nothing is appended, in words. Of a key pair that was given back, as of files that were, it is
/// only known that something else may have been signed with it meanwhile.
pub(crate) fn why(lock: &AppendLock) -> String {
    match lock {
        AppendLock::Copied => format!(
            "{lock}, or its key pair was imported, and blocks may have been signed elsewhere"
        ),
        lock => lock.to_string(),
    }
}

/// `path` as a word of a command that people paste into a shell, such that it is this path there and
/// nothing else. Quoted by the rules of POSIX, but only where it has to be.
pub(crate) fn quoted(path: &Path) -> String {
    let mut word = path.display().to_string();
    if word.starts_with('-') {
        // It would be taken for an option, in quotes as well.
        word.insert_str(0, "./");
    }
    let is_plain = |(i, c): (usize, char)| match c {
        // In front of a word, a shell replaces what follows them.
        '~' | '=' => i > 0,
        '_' | '-' | '.' | '/' | ',' | ':' | '@' | '%' | '+' => true,
        '\\' => cfg!(windows),
        c => c.is_alphanumeric(),
    };
    if !word.is_empty() && word.char_indices().all(is_plain) {
        return word;
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// What happened to a file, in words.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        // It has words of its own.
        _ if error.get_ref().is_some() => error.to_string(),
        io::ErrorKind::NotFound => "it does not exist".into(),
        io::ErrorKind::PermissionDenied => "access is denied".into(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".into(),
        io::ErrorKind::StorageFull => "the disk is full".into(),
        io::ErrorKind::FileTooLarge => "no file may be so large".into(),
        io::ErrorKind::ConnectionRefused => "nobody listens there".into(),
        io::ErrorKind::TimedOut => "no answer".into(),
        io::ErrorKind::IsADirectory => "it is a directory".into(),
        io::ErrorKind::NotADirectory => "what stands before its name is not a directory".into(),
        io::ErrorKind::AddrInUse => "another program listens there".into(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".into(),
        _ if is_cut(error.kind()) => "the connection was cut off".into(),
        _ => plain(&error.to_string()).to_owned(),
    }
}

fn is_cut(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset)
}

/// Why a connection ended, in words.
pub(crate) fn end_of(error: &Error) -> String {
    match error {
        Error::Transport(cause) if is_cut(cause.kind()) => reason(cause),
        // Where in a message it was is of no use to anybody.
        Error::Wire(wire::Error::UnexpectedEnd) => "the connection was cut off".into(),
        error => plain(&error.to_string()).to_owned(),
    }
}

/// The same of what an event tells: what the system says is known by its number.
pub(crate) fn end_words(reason: &str) -> String {
    let number = reason.rsplit_once(" (os error ");
    let number = number.and_then(|(_, number)| number.strip_suffix(')')?.parse().ok());
    match number.map(io::Error::from_raw_os_error) {
        Some(error) if is_cut(error.kind()) => end_of(&Error::Transport(error)),
        // It may be of a file.
        Some(_) => plain(reason).to_owned(),
        None if reason == wire::Error::UnexpectedEnd.to_string() => {
            end_of(&Error::Wire(wire::Error::UnexpectedEnd))
        }
        None => reason.to_owned(),
    }
}

/// `text` without the number that the system gives an error, which says nothing to people.
pub(crate) fn plain(text: &str) -> &str {
    match text.rsplit_once(" (os error ") {
        Some((words, number)) if number.ends_with(')') => words,
        _ => text,
    }
}

/// What to do about it.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if error.get_ref().is_some() => "change that and try again",
        io::ErrorKind::PermissionDenied => "run it as the owner of the files",
        io::ErrorKind::ReadOnlyFilesystem => "mount it for writing and try again",
        io::ErrorKind::StorageFull => "free some space and try again",
        io::ErrorKind::FileTooLarge => "raise the limit (`ulimit -f`) and try again",
        _ => "check the disk and the path",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_where_they_have_to_be() {
        for (path, word) in [
            ("log", "log"),
            ("../a/b_1-2.3", "../a/b_1-2.3"),
            ("/srv/a,b:c@d%e+f=g~", "/srv/a,b:c@d%e+f=g~"),
            ("blöcke", "blöcke"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
            ("a`b`", "'a`b`'"),
            ("~", "'~'"),
            ("=ls", "'=ls'"),
            ("-v", "./-v"),
            ("-a b", "'./-a b'"),
            ("a\u{a0}b", "'a\u{a0}b'"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn ends_have_one_name() {
        let reset = "the connection failed: Connection reset by peer (os error 104)";
        assert_eq!(end_words(reset), "the connection was cut off");
        let down = "the connection failed: Host is down (os error 112)";
        assert_eq!(end_words(down), "the connection failed: Host is down");
        let full =
            "could not write the file `data` at byte 0: No space left on device (os error 28)";
        assert_eq!(end_words(full), plain(full));
        let closed = "the connection was closed";
        assert_eq!(end_words(closed), closed);
    }

    #[test]
    fn numbers_of_the_system_are_not_for_people() {
        assert_eq!(plain("Host is down (os error 112)"), "Host is down");
        assert_eq!(plain("Host is down"), "Host is down");
        for kind in [
            io::ErrorKind::IsADirectory,
            io::ErrorKind::NotADirectory,
            io::ErrorKind::AddrInUse,
            io::ErrorKind::AddrNotAvailable,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::BrokenPipe,
        ] {
            let words = reason(&kind.into());
            assert_ne!(words, io::Error::from(kind).to_string());
        }
        let cut = Error::Transport(io::ErrorKind::ConnectionReset.into());
        assert_eq!(end_of(&cut), "the connection was cut off");
        let cut = Error::Wire(wire::Error::UnexpectedEnd);
        assert_eq!(end_of(&cut), "the connection was cut off");
        assert_eq!(end_of(&Error::NoCore), Error::NoCore.to_string());
    }
}
