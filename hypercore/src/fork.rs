//! Proof that one key signed two histories.

use std::{fmt, str::FromStr};

use hypercore_merkle::{Node, NodeIndex, PublicKey, Roots, Signature, Verifier, full_roots};

/// The end of a log as its writer signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRoots {
    /// The roots of its tree.
    pub roots: Roots,
    /// The writer's signature over them.
    pub signature: Signature,
}

/// Two histories signed with one key: anybody can [verify](Self::verify) that.
///
/// A writer who went on from an old copy of a log has signed both. Which one is right, only people
/// can decide. It is written and parsed as text, which is how a directory keeps it, in a file
/// `fork-proof-<length>`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForkProof {
    /// The key that signed.
    pub key: PublicKey,
    /// One history, not longer than the other.
    pub shorter: SignedRoots,
    /// The other one.
    pub longer: SignedRoots,
    /// Where they differ, if their lengths do: a node of the longer one that stands where the
    /// shorter one has another root, followed by its sibling, the sibling of their parent, and so
    /// on up to a root.
    pub path: Vec<Node>,
}

impl ForkProof {
    /// Whether both histories are signed with [`key`](Self::key), and cannot both be parts of one.
    #[must_use]
    pub fn verify(&self) -> bool {
        let verifier = Verifier::new(&self.key);
        let is_signed = |end: &SignedRoots| verifier.verify(&end.roots.head(), &end.signature);
        is_signed(&self.shorter) && is_signed(&self.longer) && self.contradicts()
    }

    fn contradicts(&self) -> bool {
        let (shorter, longer) = (&self.shorter.roots, &self.longer.roots);
        if shorter.length() == longer.length() {
            return shorter.head().hash != longer.head().hash;
        }
        let Some((node, siblings)) = self.path.split_first() else {
            return false;
        };
        // The size of a node below a root is bound with that of its sibling only, in their sum. That of
        // the whole is bound by the hash.
        let differs = |root: &Node| root.index == node.index && root.hash != node.hash;
        if shorter.length() > longer.length() || !shorter.nodes().iter().any(differs) {
            return false;
        }
        let top = siblings.iter().try_fold(*node, |node, sibling| {
            let is_sibling = sibling.index == node.index.sibling();
            is_sibling.then(|| Node::parent(&node, sibling)).flatten()
        });
        top.is_some_and(|top| longer.nodes().contains(&top))
    }

    /// A proof from two ends of logs, the nodes of the longer one being those that `node` knows.
    pub(crate) fn find(
        key: PublicKey,
        shorter: SignedRoots,
        longer: SignedRoots,
        node: impl Fn(NodeIndex) -> Option<Node>,
    ) -> Option<Self> {
        let mut proof = Self {
            key,
            shorter,
            longer,
            path: Vec::new(),
        };
        for root in proof.shorter.roots.nodes() {
            let Some(other) = node(root.index).filter(|other| other.hash != root.hash) else {
                continue;
            };
            let mut path = vec![other];
            let mut top = other;
            while !proof.longer.roots.nodes().contains(&top) {
                let parent = node(top.index.sibling()).and_then(|sibling| {
                    path.push(sibling);
                    Node::parent(&top, &sibling)
                });
                match parent {
                    Some(parent) => top = parent,
                    None => break,
                }
            }
            proof.path = path;
            if proof.verify() {
                return Some(proof);
            }
        }
        proof.path.clear();
        proof.verify().then_some(proof)
    }
}

const TITLE: &str = "hypercore fork proof 1";

impl fmt::Display for ForkProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE}")?;
        writeln!(f, "key {}", self.key)?;
        for end in [&self.shorter, &self.longer] {
            writeln!(f, "length {}", end.roots.length())?;
            writeln!(f, "signature {}", end.signature)?;
            for node in end.roots.nodes() {
                write_node(f, node)?;
            }
        }
        writeln!(f, "path")?;
        self.path.iter().try_for_each(|node| write_node(f, node))
    }
}

fn write_node(f: &mut fmt::Formatter<'_>, node: &Node) -> fmt::Result {
    let Node { index, size, hash } = node;
    // A key is 32 bytes in hexadecimal digits, and so is a hash.
    writeln!(f, "node {index} {size} {}", PublicKey::from(*hash))
}

/// A text that is no [`ForkProof`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not one of a fork proof")]
#[non_exhaustive]
pub struct NoForkProof {
    /// The line, counted from 1.
    pub line: usize,
}

impl FromStr for ForkProof {
    type Err = NoForkProof;

    /// Reads what `Display` writes. It is not verified.
    fn from_str(text: &str) -> Result<Self, NoForkProof> {
        let mut lines = Lines {
            rest: text.lines().collect(),
            line: 1,
        };
        lines.parse().ok_or(NoForkProof { line: lines.line })
    }
}

struct Lines<'a> {
    rest: std::collections::VecDeque<&'a str>,
    line: usize,
}

impl<'a> Lines<'a> {
    fn parse(&mut self) -> Option<ForkProof> {
        self.take(TITLE).filter(|rest| rest.is_empty())?;
        let key = PublicKey::from(bytes(self.take("key ")?)?);
        let shorter = self.signed_roots()?;
        let longer = self.signed_roots()?;
        self.take("path")?;
        let path = self.nodes()?;
        self.rest.is_empty().then_some(ForkProof {
            key,
            shorter,
            longer,
            path,
        })
    }

    /// What follows `word` in the next line.
    fn take(&mut self, word: &str) -> Option<&'a str> {
        let rest = self.rest.front()?.strip_prefix(word)?;
        self.rest.pop_front();
        self.line = self.line.saturating_add(1);
        Some(rest)
    }

    fn signed_roots(&mut self) -> Option<SignedRoots> {
        let length = self.take("length ")?.parse().ok()?;
        let signature: [u8; 64] = bytes(self.take("signature ")?)?;
        let signature = Signature::from(signature);
        let nodes = self.nodes()?;
        // The empty log is no history.
        full_roots(length).next()?;
        let roots = Roots::from_nodes(length, nodes).ok()?;
        Some(SignedRoots { roots, signature })
    }

    fn nodes(&mut self) -> Option<Vec<Node>> {
        let mut nodes = Vec::new();
        while let Some(node) = self.take("node ") {
            let mut words = node.split(' ');
            nodes.push(Node {
                index: NodeIndex::new(words.next()?.parse().ok()?)?,
                size: words.next()?.parse().ok()?,
                hash: bytes(words.next()?)?,
            });
        }
        Some(nodes)
    }
}

/// `N` bytes in hexadecimal digits.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != N.saturating_mul(2) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = str::from_utf8(digits).ok()?;
        // `from_str_radix` takes a sign.
        digits
            .bytes()
            .all(|digit| digit.is_ascii_hexdigit())
            .then_some(())?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}
