//! What happens to files: rot, cuts, sectors that never came to the disk or came to another place.

use hypercore::storage::FileName;

use super::super::random::Random;
use super::originals::Files;

/// What of a file is lost or misplaced at once.
const SECTOR: usize = 512;

/// Where the content of a file and the regions of a page of the bitfield begin.
const TURNS: [usize; 3] = [32, 32 + 1024, 32 + 3072];

const EDGES: [u8; 6] = [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff];

/// Damages the files in one to three ways.
pub(super) fn damage(files: &mut Files, random: &mut Random) {
    // Most often once, so that what one damage does is not hidden by another.
    for _ in 0..random.one_of(&[1, 1, 1, 2, 3]) {
        damage_once(files, random);
    }
}

fn damage_once(files: &mut Files, random: &mut Random) {
    let name = random.one_of(&FileName::ALL);
    let kind = random.below(12);
    if kind == 0 {
        let other = random.one_of(&FileName::ALL);
        return files.0.swap(name as usize, other as usize);
    }
    let bytes = files.get_mut(name);
    let at = place(bytes.len(), random);
    match kind {
        1 => bytes.clear(),
        2 => bytes.truncate(at),
        3 => bytes.resize(bytes.len() + 1 + random.below(2 * SECTOR), 0),
        4 => bytes.extend((0..=random.below(2 * SECTOR)).map(|_| random.below(256) as u8)),
        5 => {
            let sector = at / SECTOR * SECTOR;
            bytes
                .iter_mut()
                .skip(sector)
                .take(SECTOR)
                .for_each(|byte| *byte = 0);
        }
        6 => {
            // Records of 40 and of 64 bytes, wherever they belong.
            let size = if name == FileName::Tree { 40 } else { 64 };
            let count = bytes.len().saturating_sub(32) / size;
            let [from, to] = [(); 2].map(|()| 32 + size * random.below(count));
            if count > 0 {
                bytes.copy_within(from..from + size, to);
            }
        }
        7 | 8 => set(bytes, at, random.one_of(&EDGES)),
        9 => set(bytes, random.below(8), random.below(256) as u8),
        _ => {
            let bit = 1 << random.below(8);
            bytes.iter_mut().skip(at).take(1).for_each(|it| *it ^= bit);
        }
    }
}

/// Any byte, or one near which a file says much.
fn place(len: usize, random: &mut Random) -> usize {
    match random.below(2) {
        0 => random.below(len),
        _ => (random.one_of(&TURNS) + random.below(8)).min(len),
    }
}

fn set(bytes: &mut [u8], at: usize, byte: u8) {
    bytes.iter_mut().skip(at).take(1).for_each(|it| *it = byte);
}
