//! The process' own heap: what is freed goes back to the host.

#![expect(unsafe_code, reason = "the C library's allocator is set up by a call of its own")]

/// Tells the C library's allocator to give freed memory back to the host soon, for the whole process.
///
/// By itself glibc keeps a heap for every few threads, and keeps more and more of what was freed in each: a machine whose
/// vCPUs come and go, each with a thread and megabytes of its own, would grow by several times what it uses. A program
/// calls this once, at its start. It changes nothing with other C libraries.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    for (what, value) in
        [(libc::M_ARENA_MAX, HEAPS), (libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, LARGE)]
    {
        // SAFETY: mallopt takes two numbers, and may be called at any time by any thread.
        unsafe { libc::mallopt(what, value) };
    }
}

/// Heaps that threads share; more would stand in each other's way less, but nothing here allocates all the time.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 3;
/// Bytes from which an allocation has a mapping of its own, and free bytes that a heap may end with.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 1 << 20;
