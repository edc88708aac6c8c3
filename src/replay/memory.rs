//! The store of one process.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, PoisonError};

use super::{Recorded, ReplayStore, ReplayStoreError, Sighting};
use crate::clock::Clock;

/// Remembers in memory, exactly, up to a number of entries. For a service that runs in one process.
///
/// Entries stand in two generations. When the last entry of the older one has run out, the whole of it is given back
/// and the younger takes its place: no entry goes before its time, none is looked for one by one, and no background task
/// runs. An entry is held for at most twice the time that it must be.
///
/// What it cannot know it refuses: a signature from before its own start (another process may have seen it), and, when the
/// clock was set back, one that it may have forgotten.
pub struct MemoryReplayStore {
    capacity: usize,
    started_at: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    young: Generation,
    old: Generation,
    /// Everything up to this `until` is forgotten.
    forgotten: u64,
}

#[derive(Default)]
struct Generation {
    macs: HashSet<[u8; 32], BuildHasherDefault<FirstBytes>>,
    /// When the last of them has run out.
    until: u64,
}

impl MemoryReplayStore {
    /// Holds at most `capacity` entries: refuses beyond, forgets nothing. `clock` is asked once, for the start; where it
    /// cannot tell the time, everything is refused.
    #[must_use]
    pub fn new(capacity: usize, clock: &impl Clock) -> Self {
        Self {
            capacity,
            started_at: clock.now().unwrap_or(u64::MAX),
            state: Mutex::default(),
        }
    }

    /// How many entries are held.
    #[must_use]
    pub fn len(&self) -> usize {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.young.macs.len() + state.old.macs.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn record_now(&self, sighting: &Sighting) -> Result<Recorded, ReplayStoreError> {
        if sighting.signed_at < self.started_at {
            return Ok(Recorded::Seen);
        }
        // A panic between two of its steps could leave an entry out, but nothing here panics.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let freed = state.age(sighting.now);
        let recorded = state.record(sighting, self.capacity);
        drop(state);
        // Outside of the lock: a large table takes a while to give back.
        drop(freed);
        recorded
    }
}

impl State {
    /// Lets go of what has run out: the older generation, and after a pause both. A last second is still inside.
    fn age(&mut self, now: u64) -> [Generation; 2] {
        let mut freed = [Generation::default(), Generation::default()];
        for freed in &mut freed {
            if self.old.until >= now {
                break;
            }
            *freed = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            self.forgotten = self.forgotten.max(freed.until);
        }
        freed
    }

    fn record(&mut self, sighting: &Sighting, capacity: usize) -> Result<Recorded, ReplayStoreError> {
        let known = |generation: &Generation| generation.macs.contains(&sighting.mac);
        if sighting.until <= self.forgotten || known(&self.young) || known(&self.old) {
            return Ok(Recorded::Seen);
        }
        if self.young.macs.len() + self.old.macs.len() >= capacity {
            return Err(ReplayStoreError::Full);
        }
        self.young.macs.insert(sighting.mac);
        self.young.until = self.young.until.max(sighting.until);
        Ok(Recorded::Fresh)
    }
}

impl ReplayStore for MemoryReplayStore {
    async fn record(&self, sighting: Sighting) -> Result<Recorded, ReplayStoreError> {
        self.record_now(&sighting)
    }
}

/// A MAC is as good as random, and only a verified one comes here: its first bytes are its hash.
#[derive(Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length, which comes first, says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn a_mac_is_its_own_hash() {
        let hash = |mac: [u8; 32]| BuildHasherDefault::<FirstBytes>::default().hash_one(mac);
        let mut mac = [7; 32];
        assert_eq!(hash(mac), 0x0707_0707_0707_0707);
        mac[0] = 1;
        assert_eq!(hash(mac), 0x0707_0707_0707_0701);
    }
}
