//! The sparse bitfields of Hypercore: which blocks and tree nodes are here, and which a peer has.
