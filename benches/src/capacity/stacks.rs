//! What bounds the stacks that a process may have: its memory maps, and the machine's memory.

use super::Bound;
use crate::machine;

/// Memory maps kept for the program itself, its libraries and its heap.
const MAPS_RESERVED: u64 = 1_000;
/// One in so many bytes of the available memory is kept for everything else.
const MEMORY_RESERVED_SHARE: u64 = 4;

/// What a connection takes that has a stack of its own; `tests/models.rs` counts the maps.
pub(super) struct Stack {
    owner: &'static str,
    maps: u64,
    /// Memory that is really used, the kernel's for it included.
    bytes: u64,
}

/// Maps: its stack, the stack's guard page, the signal stack that the standard library gives it, and
/// that one's guard page. Memory: three pages and a little, and a kernel stack of four.
pub(super) const THREAD: Stack = Stack { owner: "a thread", maps: 4, bytes: 29 * 1024 };
/// Maps: its stack and the guard page. Memory: both ends of the stack, which are written to when it
/// is made, and what stands for the fiber on the heap.
pub(super) const FIBER: Stack = Stack { owner: "a fiber", maps: 2, bytes: 9 * 1024 };

/// Returns what bounds connections that have such a stack each.
pub(super) fn bounds(stack: &Stack) -> Vec<Bound> {
    let Stack { owner, maps: maps_each, bytes } = stack;
    let maps = machine::number("/proc/sys/vm/max_map_count").map(|maps| Bound {
        connections: maps.saturating_sub(MAPS_RESERVED) / maps_each,
        what: format!(
            "a process may have {maps} memory maps (`sysctl vm.max_map_count`), and {owner} takes \
             {maps_each}"
        ),
    });
    let memory = machine::available_bytes().map(|available| Bound {
        connections: (available - available / MEMORY_RESERVED_SHARE) / bytes,
        what: format!(
            "{} MiB of memory are available, a quarter of it kept in reserve, and {owner} takes {} \
             kiB",
            available >> 20,
            bytes >> 10
        ),
    });
    maps.into_iter().chain(memory).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_room_for_some() {
        for stack in [THREAD, FIBER] {
            let bounds = bounds(&stack);
            assert_eq!(bounds.len(), 2);
            assert!(bounds.iter().all(|bound| bound.connections > 0), "{bounds:?}");
        }
    }
}
