//! The Merkle tree without anything around it: one side proves a block, the other, which has
//! nothing but a public key, checks it. No files, no network, no async.
//!
//! ```text
//! cargo run --release --example merkle_alone
//! ```

use std::collections::{BTreeMap, BTreeSet};

use hypercore_merkle::{
    Block, Error, KeyPair, Node, NodeIndex, Proof, PublicKey, RemoteTree, Roots, Signature,
    Verifier, append, proof, verify,
};

/// What the writer keeps: nodes and signatures. Where the blocks are is nobody's business here.
#[derive(Default)]
struct Writer {
    roots: Roots,
    nodes: BTreeMap<NodeIndex, Node>,
    signatures: BTreeMap<u64, Signature>,
}

impl Writer {
    fn append(&mut self, block: &'static str, key_pair: &KeyPair) -> Result<(), Error> {
        let block = Block::hash(block.into());
        let changes = append::append(&self.roots, vec![block], key_pair)?;
        for &node in changes.nodes() {
            self.nodes.insert(node.index, node);
        }
        if let Some((length, signature)) = changes.signature() {
            self.signatures.insert(length, signature.clone());
        }
        self.roots = changes.roots().expect("an append has roots").clone();
        Ok(())
    }

    fn prove(&self, block: u64) -> Proof {
        let leaf = NodeIndex::leaf(block).expect("a small number");
        let present: BTreeSet<_> = self.nodes.keys().copied().collect();
        // What the other side has already; here nothing, so a digest of 0.
        let plan = proof::plan(&present, &mut RemoteTree::new(), leaf, 0, false);
        let plan = plan.expect("the writer has every block");
        Proof {
            nodes: plan.nodes.iter().map(|index| self.nodes[index]).collect(),
            signature: self.signatures.get(&(plan.verified_by / 2)).cloned(),
        }
    }
}

/// Whether `value` is block `block` of the log with this key.
fn check(key: &PublicKey, block: u64, value: &'static str, proof: &Proof) -> Result<(), Error> {
    let plan = verify::plan(&BTreeSet::new(), block, true, proof)?;
    let value = Block::hash(value.into());
    let nothing = Roots::new().head();
    let changes = plan.check(&Verifier::new(key), &nothing, Some(value), proof, &[])?;
    let head = changes.head().expect("a first proof shows a head");
    println!(
        "block {block} is genuine; the log has {} blocks",
        head.length
    );
    Ok(())
}

fn main() -> Result<(), Error> {
    let key_pair = KeyPair::generate()?;
    let mut writer = Writer::default();
    for block in ["in", "the", "beginning", "was", "the", "log"] {
        writer.append(block, &key_pair)?;
    }

    let proof = writer.prove(2);
    println!(
        "the proof of block 2 has {} nodes and a signature",
        proof.nodes.len()
    );
    check(&key_pair.public_key(), 2, "beginning", &proof)?;

    let forged = check(&key_pair.public_key(), 2, "end", &proof);
    println!("a forgery: {}", forged.expect_err("not what was signed"));
    let stranger = check(&KeyPair::generate()?.public_key(), 2, "beginning", &proof);
    println!(
        "another key: {}",
        stranger.expect_err("signed by somebody else")
    );
    Ok(())
}
