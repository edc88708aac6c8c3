//! An allocator that counts: `#[global_allocator] static ALLOCATOR: Counting = Counting;`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

pub(crate) struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static TOTAL: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);
/// Off while time is measured, because counting costs.
static COUNTS: AtomicBool = AtomicBool::new(false);

fn grown(by: usize) {
    if COUNTS.load(Relaxed) {
        CALLS.fetch_add(1, Relaxed);
        TOTAL.fetch_add(by, Relaxed);
        PEAK.fetch_max(LIVE.fetch_add(by, Relaxed) + by, Relaxed);
    }
}

fn shrunk(by: usize) {
    if COUNTS.load(Relaxed) {
        LIVE.fetch_sub(by, Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrunk(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        grown(new);
        shrunk(layout.size());
        unsafe { System.realloc(pointer, layout, new) }
    }
}

/// What some work allocated.
pub(crate) struct Cost {
    /// Bytes, at the highest.
    pub(crate) peak: f64,
    /// Bytes, all together.
    pub(crate) total: f64,
    pub(crate) calls: f64,
}

pub(crate) fn cost<T>(work: impl FnOnce() -> T) -> Cost {
    // Far from zero, so that what was there before can be given back.
    LIVE.store(usize::MAX / 2, Relaxed);
    PEAK.store(usize::MAX / 2, Relaxed);
    TOTAL.store(0, Relaxed);
    CALLS.store(0, Relaxed);
    COUNTS.store(true, Relaxed);
    let done = work();
    COUNTS.store(false, Relaxed);
    drop(done);
    Cost {
        peak: (PEAK.load(Relaxed) - usize::MAX / 2) as f64,
        total: TOTAL.load(Relaxed) as f64,
        calls: CALLS.load(Relaxed) as f64,
    }
}
