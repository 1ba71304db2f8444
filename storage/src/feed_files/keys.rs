//! The keys, each alone in a file without a header.

use zeroize::Zeroizing;

use super::FeedFiles;
use crate::error::Result;

impl FeedFiles {
    /// The public key, if there is one. As in Node, bytes after it do not matter.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) when the file is shorter than a key, and when the
    /// storage fails.
    pub fn key(&self) -> Result<Option<[u8; 32]>> {
        let mut key = [0; 32];
        Ok(self.key.read_key(&mut key)?.then_some(key))
    }

    /// Stores the public key.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`](crate::Error::Locked) when someone else has made a log here since this was
    /// opened, and when the storage fails.
    pub fn write_key(&self, key: &[u8; 32]) -> Result<()> {
        self.write(&self.key, 0, key)
    }

    /// The secret key, if there is one: 32 bytes of seed, then the public key. It is not checked
    /// against the public key.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt) when the file is shorter than a key, and when the
    /// storage fails.
    pub fn secret_key(&self) -> Result<Option<Zeroizing<[u8; 64]>>> {
        let mut key = Zeroizing::new([0; 64]);
        Ok(self.secret_key.read_key(&mut *key)?.then_some(key))
    }

    /// Stores the secret key.
    ///
    /// # Errors
    ///
    /// As [`write_key`](Self::write_key).
    pub fn write_secret_key(&self, key: &[u8; 64]) -> Result<()> {
        self.write(&self.secret_key, 0, key)
    }
}
