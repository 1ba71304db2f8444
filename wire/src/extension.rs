//! Names and numbers of extensions (abstract-extension).

use crate::{Error, Limits};

/// The extensions of both sides, on one channel or on the stream.
#[derive(Debug, Default)]
pub(crate) struct Extensions {
    /// Ours that the remote has heard of, in the order of their numbers,
    local: Vec<String>,
    /// and those of which messages are taken: perhaps it is to hear of them.
    expected: Vec<String>,
    /// The remote's, by its numbers.
    remote: Vec<String>,
}

impl Extensions {
    /// Names of extensions in the order to be sent, which numbers them.
    pub(crate) fn sorted(mut names: Vec<String>, limits: &Limits) -> Result<Vec<String>, Error> {
        let (count, length) = (limits.extension_names, limits.extension_name);
        if names.len() > count || names.iter().any(|name| name.len() > length) {
            return Err(Error::TooManyExtensions {
                names: count,
                length,
            });
        }
        // JS compares strings by UTF-16 code units, which differs from UTF-8 above U+FFFF.
        names.sort_by(|a, b| a.encode_utf16().cmp(b.encode_utf16()));
        names.dedup();
        Ok(names)
    }

    /// Declares our extensions, whose names are sorted.
    pub(crate) fn declare(&mut self, sorted: Vec<String>) {
        self.expected.clone_from(&sorted);
        self.local = sorted;
    }

    /// Takes messages of these extensions. Ours keep the numbers that the remote knows.
    pub(crate) fn expect(&mut self, sorted: Vec<String>) {
        self.expected = sorted;
    }

    /// Remembers the names the remote declared.
    pub(crate) fn remote_declared(&mut self, names: Vec<String>) {
        self.remote = names;
    }

    pub(crate) fn local(&self) -> &[String] {
        &self.local
    }

    pub(crate) fn remote(&self) -> &[String] {
        &self.remote
    }

    /// The number under which we send messages of `name`.
    pub(crate) fn id(&self, name: &str) -> Result<u64, Error> {
        let id = self.local.iter().position(|local| local == name);
        id.map(|id| id as u64)
            .ok_or_else(|| Error::UnknownExtension {
                name: name.to_owned(),
            })
    }

    /// The name behind a number of the remote, if we declared it too.
    pub(crate) fn name(&self, remote_id: u64) -> Option<&str> {
        let name = self.remote.get(usize::try_from(remote_id).ok()?)?;
        // By name, where JS merges two sorted lists and so misses names of an unsorted one.
        self.expected.contains(name).then_some(name)
    }
}
