//! Every guarantee of the engine and every mistake that others have made, with what shows that it holds, or is not made.
//!
//! A test of the suite runs over every accelerator. Some things need more than the suite has (a guest with an MMU, a kernel,
//! an accelerator that is not there yet); what shows those is named by file.

/// What shows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A test of the suite, by name.
    Suite(&'static str),
    /// Words in a file of the workspace: a test's name, or what a guest does.
    File(&'static str, &'static str),
    /// Nothing yet, and why.
    Open(&'static str),
}

use Shown::{File, Suite};

/// The guarantees, by number.
pub const GUARANTEES: &[(u32, &str, &[Shown])] = &[
    (
        1,
        "creation is synchronous, a new vCPU is stopped",
        &[
            Suite("g01_creation_returns_a_stopped_vcpu_on_its_own_thread"),
            Suite("g01_creation_returns_the_accelerators_error"),
            Suite("g01_a_panic_during_creation_is_an_error"),
            Suite("g01_numbers_are_taken_once"),
        ],
    ),
    (2, "work runs in every state", &[Suite("g02_work_runs_in_every_state")]),
    (3, "run_on", &[Suite("g03_run_on_is_direct_on_the_own_thread")]),
    (
        4,
        "run_on_async",
        &[
            Suite("g04_async_work_is_deferred_and_in_order"),
            Suite("g04_work_that_makes_work_holds_nothing_up"),
        ],
    ),
    (5, "run_exclusive", &[Suite("g05_others_are_outside_guest_execution_in_a_section")]),
    (
        6,
        "one section at a time, nested on one thread, never from inside execution",
        &[
            Suite("g06_one_section_at_a_time_and_nesting_is_allowed"),
            Suite("g06_a_section_that_waits_does_only_its_own_work"),
            Suite("bug_exclusive_section_entered_from_inside_execution"),
        ],
    ),
    (
        7,
        "a section waits only for those that execute",
        &[
            Suite("g07_a_section_leaves_halted_vcpus_asleep"),
            Suite("g07_a_section_holds_a_vcpu_that_wakes_at_the_door"),
        ],
    ),
    (
        8,
        "a broadcast TLB invalidation is complete after the DSB",
        &[
            File("guests/tests/smp.c", "From here on, no CPU may see the older page"),
            File("crates/accel-jit/src/runtime/maintenance.rs", "fn nobody_waits_for_a_vcpu_that_panicked"),
        ],
    ),
    (
        9,
        "a kick is never lost",
        &[
            Suite("g09_no_kick_is_lost_by_a_running_vcpu"),
            Suite("g09_no_wake_is_lost_by_a_halting_vcpu"),
            File("crates/engine/src/models/protocols.rs", "fn work_gets_a_running_vcpu_out"),
        ],
    ),
    (
        10,
        "pause and resume, from any number of threads",
        &[
            Suite("g10_only_stopped_vcpus_make_a_pause"),
            Suite("g10_any_number_of_threads_wait_for_one_pause"),
            Suite("g10_pause_and_resume_at_once_stay_in_order"),
        ],
    ),
    (
        11,
        "a stop that a vCPU asks for is carried out by the machine's thread",
        &[
            Suite("g11_a_reset_asked_for_by_a_vcpu_is_done_by_the_machines_thread"),
            Suite("g11_blocking_calls_on_a_vcpus_thread_are_refused"),
        ],
    ),
    (
        12,
        "breakpoints, watchpoints, steps, and chosen vCPUs alone",
        &[
            Suite("g12_a_step_is_one_instruction"),
            Suite("g12_a_breakpoint_stops_before_its_instruction"),
            Suite("g12_a_frozen_vcpu_stays_where_it_is"),
            Suite("g12_one_vcpus_stop_stops_all_and_is_told"),
            File("crates/accel-jit/tests/watchpoints.rs", "fn each_access_stops_exactly_where_it_is_watched"),
        ],
    ),
    (
        13,
        "halts sleep, and wake for interrupts and events",
        &[
            Suite("g13_a_vcpu_in_wfi_uses_no_host_time"),
            Suite("g13_a_vcpu_in_wfe_uses_no_host_time"),
            Suite("g13_wfi_wakes_on_each_interrupt_line"),
            Suite("g13_wfe_wakes_on_the_event_register_and_clears_it"),
            Suite("g13_wfe_wakes_on_an_unmasked_interrupt"),
            Suite("g13_wfe_with_an_armed_monitor_ends_by_itself"),
            Suite("g13_the_event_stream_ends_wfe"),
            Suite("g13_sev_wakes_the_others"),
            Suite("g13_work_does_not_end_a_halt"),
        ],
    ),
    (
        14,
        "unplug",
        &[
            Suite("g14_unplugging_cancels_waiting_work_and_refuses_more"),
            Suite("g14_of_unplugging_and_cpu_on_exactly_one_succeeds"),
            Suite("g14_a_vcpu_can_be_unplugged_and_plugged_again_while_the_machine_runs"),
            Suite("g14_nothing_reaches_a_vcpu_that_left"),
            File("crates/machine/tests/plug_soak.rs", "fn vcpus_come_and_go_under_load"),
        ],
    ),
    (
        15,
        "vCPUs that call each other get through",
        &[
            Suite("g15_vcpus_that_call_each_other_get_through"),
            Suite("g15_sections_on_each_other_get_through"),
        ],
    ),
    (
        16,
        "KVM: immediate exit, completion of accesses",
        &[
            File("crates/accel-kvm/tests/conformance.rs", "conformance_tests!(Kvm)"),
            File("crates/accel-kvm/tests/exits.rs", "fn an_access_is_complete_when_registers_are_read"),
        ],
    ),
    (
        17,
        "PSCI's power of single vCPUs",
        &[
            Suite("g17_of_racing_cpu_on_calls_one_succeeds"),
            Suite("g17_on_pending_lasts_until_the_target_has_acted"),
            Suite("g17_cpu_off_and_on_again"),
            Suite("g17_reset_decides_about_power"),
        ],
    ),
    (
        18,
        "the same input gives the same run",
        &[
            File("xtask/src/repeat.rs", "pub fn linux_twice"),
            File("crates/machine/tests/rewind.rs", "fn the_past_comes_again_as_it_was"),
        ],
    ),
    (
        19,
        "every wait has an end, and a vCPU's death is told",
        &[
            Suite("g19_a_panicking_vcpu_stops_the_machine_and_says_why"),
            Suite("g19_a_fatal_exit_stops_the_machine_until_a_reset"),
            Suite("g19_a_hung_thread_is_reported_not_waited_for"),
            Suite("g19_shutdown_ends_everybody_in_any_state"),
            Suite("g19_a_report_says_who_waits_for_whom"),
        ],
    ),
    (
        20,
        "the dummy honours all this",
        &[File("crates/accel-dummy/tests/conformance.rs", "conformance_tests!(Dummy)")],
    ),
];

/// The mistakes.
pub const MISTAKES: &[(&str, &[Shown])] = &[
    ("unplug loop that never exits", &[Suite("bug_unplug_loop_that_never_exits")]),
    ("kick against an exiting thread", &[Suite("bug_kick_against_an_exiting_thread")]),
    ("vCPU visible before its thread exists", &[Suite("bug_vcpu_visible_before_its_thread_exists")]),
    ("kick before the thread exists", &[Suite("bug_kick_before_the_thread_exists")]),
    (
        "stopped set by another thread, so reset ran while the CPU still executed",
        &[Suite("bug_stopped_declared_by_another_thread"), Suite("bug_reset_ran_while_a_cpu_still_executed")],
    ),
    (
        "signalled instead of broadcast pause condition, two waiters",
        &[Suite("bug_pause_told_to_one_of_two_waiters")],
    ),
    ("exclusive work against hot-plug (lock order)", &[Suite("bug_exclusive_work_against_hot_plug")]),
    (
        "exclusive section entered from inside execution",
        &[Suite("bug_exclusive_section_entered_from_inside_execution")],
    ),
    (
        "exclusive section not released on a non-local exit",
        &[Suite("bug_exclusive_section_not_released_on_a_panic")],
    ),
    (
        "work of a non-current CPU never run in single-thread mode",
        &[Suite("bug_work_of_a_vcpu_that_is_not_current_never_run")],
    ),
    (
        "IRQ taken between the two halves of a watchpoint",
        &[Suite("bug_irq_taken_between_the_two_halves_of_a_watchpoint")],
    ),
    ("breakpoint at the address being stepped", &[Suite("bug_breakpoint_at_the_address_being_stepped")]),
    ("TLB flush run on the wrong thread", &[Suite("bug_tlb_flush_run_on_the_wrong_thread")]),
    ("idle guests in WFE burning a host core", &[Suite("bug_idle_guests_in_wfe_burn_a_host_core")]),
    (
        "reset while another thread waits for pause",
        &[Suite("bug_reset_while_another_thread_waits_for_pause")],
    ),
];

/// The names of the suite's tests.
pub const SUITE: &[&str] = &crate::conformance_tests! { @all names (); };

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_guarantee_and_each_mistake_is_shown_by_something_that_exists() {
        assert!(GUARANTEES.iter().map(|(number, ..)| *number).eq(1..=20));
        assert_eq!(MISTAKES.len(), 15);
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let all = GUARANTEES.iter().map(|(_, _, shown)| shown).chain(MISTAKES.iter().map(|(_, shown)| shown));
        for shown in all.clone() {
            assert!(!shown.is_empty());
            for shown in shown.iter() {
                match *shown {
                    Suite(name) => assert!(SUITE.contains(&name), "there is no test {name}"),
                    File(file, words) => {
                        let text = std::fs::read_to_string(workspace.join(file)).expect("the file exists");
                        assert!(text.contains(words), "{file} does not say {words:?}");
                    }
                    Shown::Open(why) => assert!(!why.is_empty()),
                }
            }
        }
        let named: Vec<_> = all.flat_map(|shown| shown.iter().copied()).collect();
        for name in SUITE {
            assert!(named.contains(&Suite(name)), "{name} is not in the catalogue: say what it shows");
        }
    }
}
