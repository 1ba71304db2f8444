//! The line that `share` prints and `receive` takes:
//! `hyper://KEY@ADDR:PORT/NAME`, without `@ADDR:PORT` on the local network.
//!
//! A name that ends with a slash is that of a folder, and `?live` follows where the content grows.
//! What does not grow has so many blocks, `?n=BLOCKS`: an older copy of the core has less. A core has
//! no room for what a file is beside its bytes, and a folder has it in its archive, so the line of a
//! file has it: `t=SECONDS` when it was written to, since 1970, and `x` that it is a program, as in
//! `?x&n=BLOCKS&t=SECONDS`. Any of them may be missing.
//! The name comes from somebody else, so it never leads out of the directory it is used in.

use std::{fmt, str::FromStr};

use hypercore::PublicKey;

use crate::{
    args::{parse_address, parse_key},
    output::is_command,
};

/// What is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One file.
    File,
    /// The archive of a folder.
    Folder,
    /// A file, or standard input, that grows.
    Log,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) key: PublicKey,
    pub(crate) address: Option<String>,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) facts: Facts,
}

/// What is known of a file or a folder beside its bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) is_program: bool,
    /// How long its log was when the line was printed.
    pub(crate) blocks: Option<u64>,
    /// When it was written to, in seconds since 1970.
    pub(crate) modified: Option<u64>,
}

/// Names are cut to what every file system takes.
const MAX_NAME: usize = 200;

impl Link {
    /// `name` as others may use it for a file of theirs.
    pub(crate) fn safe_name(name: &str) -> Option<String> {
        let is_plain = |c: char| !is_command(c) && !matches!(c, '/' | '\\' | ':');
        let is_path = name.is_empty() || name == "." || name == "..";
        (!is_path && name.len() <= MAX_NAME && name.chars().all(is_plain)).then(|| name.to_owned())
    }

    /// The like of `name` that others may use.
    pub(crate) fn make_safe(name: &str) -> String {
        let mut safe = String::new();
        for c in name.chars() {
            let c = if Self::safe_name(c.encode_utf8(&mut [0; 4])).is_some() || c == '.' {
                c
            } else {
                '_'
            };
            if safe.len().saturating_add(c.len_utf8()) > MAX_NAME {
                break;
            }
            safe.push(c);
        }
        Self::safe_name(&safe).unwrap_or_else(|| "_".to_owned())
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hyper://{}", self.key)?;
        if let Some(address) = &self.address {
            write!(f, "@{address}")?;
        }
        f.write_str("/")?;
        for byte in self.name.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'~' | b'-' => {
                    write!(f, "{}", char::from(byte))?;
                }
                byte => write!(f, "%{byte:02X}")?,
            }
        }
        match self.kind {
            Kind::File => write!(f, "{}", self.facts),
            Kind::Folder => write!(f, "/{}", self.facts),
            Kind::Log => f.write_str("?live"),
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A line that was cut lacks the end, where it does the least harm.
        let facts = [
            self.is_program.then(|| "x".to_owned()),
            self.blocks.map(|blocks| format!("n={blocks}")),
            self.modified.map(|modified| format!("t={modified}")),
        ];
        for (i, fact) in facts.iter().flatten().enumerate() {
            write!(f, "{}{fact}", if i == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl FromStr for Facts {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut facts = Self::default();
        for fact in text.split('&') {
            match fact.split_once('=') {
                None if fact == "x" => facts.is_program = true,
                Some(("n", blocks)) => facts.blocks = Some(blocks.parse().map_err(|_| ())?),
                Some(("t", seconds)) => facts.modified = Some(seconds.parse().map_err(|_| ())?),
                _ => return Err(()),
            }
        }
        Ok(facts)
    }
}

impl FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("hyper://")
            .ok_or("a line to receive starts with hyper://")?;
        // In names it is encoded.
        let (rest, told) = match rest.split_once('?') {
            Some((rest, told)) => (rest, Some(told)),
            None => (rest, None),
        };
        let (rest, kind) = match rest.strip_suffix('/') {
            _ if told == Some("live") => (rest, Kind::Log),
            Some(rest) => (rest, Kind::Folder),
            None => (rest, Kind::File),
        };
        let facts = match told.filter(|_| kind != Kind::Log) {
            Some(told) => told.parse().map_err(|()| {
                format!("`?{told}` at the end of the line is not known: is that all of it?")
            })?,
            None => Facts::default(),
        };
        let (place, name) = rest
            .split_once('/')
            .ok_or("a line to receive has a name after the key: hyper://KEY/NAME")?;
        let (key, address) = match place.split_once('@') {
            Some((key, address)) => (key, Some(parse_address(address)?)),
            None => (place, None),
        };
        let name = decode(name).and_then(|name| Self::safe_name(&name));
        Ok(Self {
            key: parse_key(key)?,
            address,
            name: name.ok_or("the name in the line is not one that a file may have")?,
            kind,
            facts,
        })
    }
}

/// Takes back the percent encoding of URLs.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        rest = after;
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    fn check(line: &str, name: &str, kind: Kind, address: Option<&str>) {
        let link: Link = line.parse().unwrap();
        assert_eq!((link.name.as_str(), link.kind), (name, kind), "{line}");
        assert_eq!(link.address.as_deref(), address, "{line}");
        assert_eq!(link.to_string(), line);
    }

    #[test]
    fn lines_of_every_kind() {
        check(&format!("hyper://{KEY}/a.txt"), "a.txt", Kind::File, None);
        let address = Some("192.168.1.5:4000");
        let line = format!("hyper://{KEY}@192.168.1.5:4000/photos/");
        check(&line, "photos", Kind::Folder, address);
        let line = format!("hyper://{KEY}@192.168.1.5:4000/app.log?live");
        check(&line, "app.log", Kind::Log, address);
        let line = format!("hyper://{KEY}/%C3%A4%20%3F%25");
        check(&line, "ä ?%", Kind::File, None);
    }

    #[test]
    fn what_a_line_tells_of_a_file() {
        for (end, is_program, blocks, modified) in [
            ("", false, None, None),
            ("?x", true, None, None),
            ("?n=7", false, Some(7), None),
            ("?t=1577934245", false, None, Some(1_577_934_245)),
            ("?x&n=0&t=0", true, Some(0), Some(0)),
        ] {
            for (slash, kind) in [("", Kind::File), ("/", Kind::Folder)] {
                let line = format!("hyper://{KEY}/a{slash}{end}");
                check(&line, "a", kind, None);
                let facts = line.parse::<Link>().unwrap().facts;
                assert_eq!(
                    (facts.is_program, facts.blocks, facts.modified),
                    (is_program, blocks, modified)
                );
            }
        }
        for end in [
            "?",
            "?liv",
            "?t=",
            "?t=-1",
            "?n=",
            "/?n=x",
            "/?live",
            "?live&n=1",
            "?y",
            "?x&",
            "?t=99999999999999999999",
        ] {
            let line = format!("hyper://{KEY}/a{end}");
            assert!(line.parse::<Link>().is_err(), "{line}");
        }
    }

    #[test]
    fn names_that_others_cannot_use_are_made_so() {
        let long = "ä".repeat(MAX_NAME);
        for (name, safe) in [
            ("a.txt", "a.txt"),
            ("10:30 a\\b\n", "10_30 a_b_"),
            ("a\u{202e}gpj.exe", "a_gpj.exe"),
            ("..", "_"),
            ("", "_"),
            (&long, &long[..MAX_NAME]),
        ] {
            assert_eq!(Link::make_safe(name), safe);
            assert!(Link::safe_name(safe).is_some());
        }
    }

    #[test]
    fn what_is_no_line_or_leads_elsewhere() {
        for name in [
            "",
            "..",
            ".",
            "%2e%2e",
            "a/b",
            "%2Fetc%2Fpasswd",
            "a%5Cb",
            "C%3Aa",
            "%00",
            "%0A",
            "a%E2%80%AEgpj.exe",
            "%",
            "%4",
            "%zz",
            "%ff",
            "../x",
        ] {
            let line = format!("hyper://{KEY}/{name}");
            assert!(line.parse::<Link>().is_err(), "{name}");
        }
        let long = "a".repeat(MAX_NAME + 1);
        for line in [
            "",
            KEY,
            &format!("hyper://{KEY}"),
            &format!("hyper://{}/a", &KEY[1..]),
            &format!("hyper://{KEY}@nowhere/a"),
            &format!("hyper://{KEY}/{long}"),
        ] {
            assert!(line.parse::<Link>().is_err(), "{line}");
        }
    }
}
