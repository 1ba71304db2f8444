//! `hypercore identity`: the static key pair by which other machines recognise this one.

use std::{
    env, fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use hypercore::{PublicKey, wire::StaticKeyPair};
use zeroize::Zeroizing;

use crate::{
    args::{IdentityArgs, Manners},
    commands::is_closed,
    errors::{Failure, Result, quoted, reason},
    output::{Output, complain},
};

pub(crate) fn identity(args: IdentityArgs, manners: &Manners) -> Result<()> {
    let path = match args.identity {
        Some(path) => path,
        None => default_path().ok_or_else(|| {
            Failure::failed("there is no home directory; name a file with --identity")
        })?,
    };
    let key_pair = match read(&path)? {
        Some(key_pair) => key_pair,
        None => create(&path)?,
    };
    let key = PublicKey::from(key_pair.public_key());
    Output::new(&args.format, manners)
        .result(&[("publicKey", key.to_string().into())], key.to_string())
}

/// The key pair of connections: that of `path`, or of `hypercore identity` if there is one. `None`
/// is a new one for each connection, by which nobody is recognised.
pub(crate) fn load(path: Option<&Path>) -> Result<Option<StaticKeyPair>> {
    match path {
        Some(path) => match read(path)? {
            Some(key_pair) => Ok(Some(key_pair)),
            None => {
                let (shown, quoted) = (path.display(), quoted(path));
                Err(Failure::failed(format!(
                    "the identity `{shown}` does not exist; `hypercore identity --identity \
                     {quoted}` makes it"
                )))
            }
        },
        None => match default_path().filter(|path| may_look_at(path)) {
            Some(path) => read(&path),
            None => Ok(None),
        },
    }
}

/// Whether this process may know of the identity in `path` at all. A service may not, where homes are
/// closed to it, and works without.
fn may_look_at(path: &Path) -> bool {
    match fs::File::open(path) {
        Err(error) if is_closed(&error) => {
            complain(format_args!(
                "`{}` may not be looked at: other machines do not recognise this one; \
                 XDG_CONFIG_HOME can name another place",
                path.display()
            ));
            false
        }
        _ => true,
    }
}

/// `$XDG_CONFIG_HOME/hypercore/identity`, or the same in `~/.config`.
fn default_path() -> Option<PathBuf> {
    let absolute = |name| {
        let path = PathBuf::from(env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let config = absolute("XDG_CONFIG_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".config")))
        .or_else(|| absolute("APPDATA"))?;
    Some(config.join("hypercore").join("identity"))
}

/// Reads the key pair in `path`, a secret key in hexadecimal digits; `None` if there is no file.
fn read(path: &Path) -> Result<Option<StaticKeyPair>> {
    let shown = path.display();
    let cannot = |error: io::Error| {
        Failure::failed(format!(
            "the identity `{shown}` cannot be read: {}",
            reason(&error)
        ))
    };
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot(error)),
    };
    let mut digits = Zeroizing::new([0; DIGITS]);
    let mut end = Vec::new();
    let read = file.read_exact(&mut *digits).and_then(|()| {
        // One byte more than there should be, so that a longer file is noticed.
        (&file).take(2).read_to_end(&mut end)
    });
    let is_whole = match read {
        Ok(_) => matches!(&*end, b"" | b"\n"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        Err(error) => return Err(cannot(error)),
    };
    let mut secret = Zeroizing::new([0; 32]);
    let decoded = HEXLOWER.decode_mut(&*digits, &mut *secret);
    if !is_whole || decoded.is_err() {
        return Err(Failure::failed(format!(
            "`{shown}` is not an identity: that is a file of {DIGITS} hex digits; `hypercore \
             identity` makes one"
        )));
    }
    // Only now: what is not an identity is not ours to change.
    keep_private(&file, path).map_err(cannot)?;
    Ok(Some(StaticKeyPair::from_secret(&secret)))
}

/// Makes a key pair, and its file before anybody can have seen the public key.
fn create(path: &Path) -> Result<StaticKeyPair> {
    let shown = path.display();
    let cannot = |error: io::Error| {
        Failure::failed(format!(
            "the identity `{shown}` cannot be made: {}",
            reason(&error)
        ))
    };
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *secret).map_err(|error| Failure::failed(error.to_string()))?;
    let mut text = Zeroizing::new([b'\n'; DIGITS + 1]);
    let [digits @ .., _] = &mut *text;
    HEXLOWER.encode_mut(&*secret, digits);

    if let Some(directory) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(directory).map_err(cannot)?;
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| {
        let written = file.write_all(&*text).and_then(|()| file.sync_all());
        if written.is_err() {
            // Half a key is of no use to anybody, and would be in the way.
            let _ = fs::remove_file(path);
        }
        written
    });
    written.map_err(cannot)?;
    Ok(StaticKeyPair::from_secret(&secret))
}

/// Takes from others the right to read the secret.
#[cfg(unix)]
fn keep_private(file: &fs::File, path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        tracing::warn!(
            "others could read the identity `{}`; that is put right",
            path.display()
        );
    }
    Ok(())
}

#[cfg(not(unix))]
fn keep_private(_: &fs::File, _: &Path) -> io::Result<()> {
    Ok(())
}

/// The digits of a secret key.
const DIGITS: usize = 64;
