//! What every accelerator must let the engine guarantee, as tests with one body each.
//!
//! A test crate names a [`Subject`] and calls [`conformance_tests!`](crate::conformance_tests); each test
//! then runs over that subject's accelerator. Tests whose name starts with `g` and a number are about that
//! guarantee; those that start with `bug` are about a mistake that other machines have made. [`catalogue`] lists all
//! guarantees and mistakes with what shows each, here or elsewhere.
//!
//! Guest code is a list of [`Op`]s, each one A64 instruction; a subject that executes nothing skips the
//! tests that need some.

pub mod bugs;
pub mod catalogue;
pub mod debug;
pub mod halt;
pub mod lifecycle;
pub mod power;
pub mod scripted;
pub mod support;
pub mod work;

use std::sync::Arc;

use crate::accel::Accelerator;
use crate::pace::Pace;

/// One guest instruction of a test program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `ADD Xn, Xn, #1`
    Increment(u8),
    /// `B` to the op with this index.
    Jump(u16),
    /// `WFI`
    Wfi,
    /// `WFE`
    Wfe,
    /// `SEV`
    Sev,
    /// `HVC #imm`
    Hvc(u16),
    /// `HLT #0xf000`
    Semihosting,
    /// `STR Xn, [X20]`
    Store(u8),
    /// `ERET`
    Eret,
}

impl Op {
    /// The instruction word, for an op that stands at index `here`.
    pub fn encode(self, here: usize) -> u32 {
        match self {
            Self::Increment(n) => 0x9100_0400 | u32::from(n & 31) << 5 | u32::from(n & 31),
            Self::Jump(to) => 0x1400_0000 | (i32::from(to) - here as i32) as u32 & 0x03ff_ffff,
            Self::Wfi => 0xd503_207f,
            Self::Wfe => 0xd503_205f,
            Self::Sev => 0xd503_209f,
            Self::Hvc(imm) => 0xd400_0002 | u32::from(imm) << 5,
            Self::Semihosting => 0xd440_0000 | 0xf000 << 5,
            Self::Store(n) => 0xf900_0000 | 20 << 5 | u32::from(n & 31),
            Self::Eret => 0xd69f_03e0,
        }
    }
}

/// An accelerator with a test program in guest memory.
pub struct Loaded {
    /// Executes it.
    pub accelerator: Arc<dyn Accelerator>,
    /// Address of the first op; op `n` is at `entry + 4 * n`.
    pub entry: u64,
    /// The vCPUs share one thread.
    pub pace: Option<Arc<dyn Pace>>,
}

/// An accelerator under test.
pub trait Subject: Sync {
    /// False if it executes no guest code; the tests that need some then do nothing.
    fn executes(&self) -> bool {
        true
    }

    /// True if each vCPU has a thread; the tests in which one vCPU blocks its thread while others go on then mean
    /// something.
    fn threads(&self) -> bool {
        true
    }

    /// True if a vCPU that executes WFI sleeps inside `run`, out of which a kick gets it early, as the architecture allows;
    /// one that executes WFE stays there too. The engine then sees both as running.
    fn sleeps_inside(&self) -> bool {
        false
    }

    /// Why it cannot pass this test, if so; the test then does nothing.
    fn cannot(&self, test: &str) -> Option<&'static str> {
        let _ = test;
        None
    }

    /// A fresh accelerator for one machine, with `program` in its memory. vCPUs start at EL1 with the MMU
    /// off and interrupts masked.
    fn load(&self, program: &[Op]) -> Loaded;
}

/// Makes one `#[test]` per conformance test for the [`Subject`] that the expression gives.
#[macro_export]
macro_rules! conformance_tests {
    ($subject:expr) => {
        $crate::conformance_tests! { @all tests $subject; }
    };
    (@all $what:ident $subject:expr;) => {
        $crate::conformance_tests! { @$what $subject;
            lifecycle: g01_creation_returns_a_stopped_vcpu_on_its_own_thread,
            lifecycle: g01_creation_returns_the_accelerators_error,
            lifecycle: g01_a_panic_during_creation_is_an_error,
            lifecycle: g01_numbers_are_taken_once,
            lifecycle: g10_only_stopped_vcpus_make_a_pause,
            lifecycle: g10_any_number_of_threads_wait_for_one_pause,
            lifecycle: g10_pause_and_resume_at_once_stay_in_order,
            lifecycle: g11_a_reset_asked_for_by_a_vcpu_is_done_by_the_machines_thread,
            lifecycle: g11_blocking_calls_on_a_vcpus_thread_are_refused,
            lifecycle: g14_unplugging_cancels_waiting_work_and_refuses_more,
            lifecycle: g14_of_unplugging_and_cpu_on_exactly_one_succeeds,
            lifecycle: g14_a_vcpu_can_be_unplugged_and_plugged_again_while_the_machine_runs,
            lifecycle: g14_nothing_reaches_a_vcpu_that_left,
            lifecycle: g19_a_panicking_vcpu_stops_the_machine_and_says_why,
            lifecycle: g19_a_fatal_exit_stops_the_machine_until_a_reset,
            lifecycle: g19_a_hung_thread_is_reported_not_waited_for,
            lifecycle: g19_shutdown_ends_everybody_in_any_state,
            work: g02_work_runs_in_every_state,
            work: g03_run_on_is_direct_on_the_own_thread,
            work: g04_async_work_is_deferred_and_in_order,
            work: g04_work_that_makes_work_holds_nothing_up,
            work: g05_others_are_outside_guest_execution_in_a_section,
            work: g06_one_section_at_a_time_and_nesting_is_allowed,
            work: g06_a_section_that_waits_does_only_its_own_work,
            work: g07_a_section_leaves_halted_vcpus_asleep,
            work: g07_a_section_holds_a_vcpu_that_wakes_at_the_door,
            work: g15_vcpus_that_call_each_other_get_through,
            work: g15_sections_on_each_other_get_through,
            work: g19_a_report_says_who_waits_for_whom,
            halt: g09_no_kick_is_lost_by_a_running_vcpu,
            halt: g09_no_wake_is_lost_by_a_halting_vcpu,
            halt: g13_a_vcpu_in_wfi_uses_no_host_time,
            halt: g13_a_vcpu_in_wfe_uses_no_host_time,
            halt: g13_wfi_wakes_on_each_interrupt_line,
            halt: g13_wfe_wakes_on_the_event_register_and_clears_it,
            halt: g13_wfe_wakes_on_an_unmasked_interrupt,
            halt: g13_wfe_with_an_armed_monitor_ends_by_itself,
            halt: g13_the_event_stream_ends_wfe,
            halt: g13_sev_wakes_the_others,
            halt: g13_work_does_not_end_a_halt,
            power: g17_of_racing_cpu_on_calls_one_succeeds,
            power: g17_on_pending_lasts_until_the_target_has_acted,
            power: g17_cpu_off_and_on_again,
            power: g17_reset_decides_about_power,
            bugs: bug_kick_against_an_exiting_thread,
            bugs: bug_vcpu_visible_before_its_thread_exists,
            bugs: bug_kick_before_the_thread_exists,
            bugs: bug_reset_ran_while_a_cpu_still_executed,
            bugs: bug_exclusive_work_against_hot_plug,
            bugs: bug_exclusive_section_entered_from_inside_execution,
            bugs: bug_exclusive_section_not_released_on_a_panic,
            bugs: bug_reset_while_another_thread_waits_for_pause,
            bugs: bug_unplug_loop_that_never_exits,
            bugs: bug_work_of_a_vcpu_that_is_not_current_never_run,
            bugs: bug_stopped_declared_by_another_thread,
            bugs: bug_pause_told_to_one_of_two_waiters,
            bugs: bug_tlb_flush_run_on_the_wrong_thread,
            bugs: bug_idle_guests_in_wfe_burn_a_host_core,
            debug: bug_breakpoint_at_the_address_being_stepped,
            debug: bug_irq_taken_between_the_two_halves_of_a_watchpoint,
            debug: g12_a_step_is_one_instruction,
            debug: g12_a_breakpoint_stops_before_its_instruction,
            debug: g12_a_frozen_vcpu_stays_where_it_is,
            debug: g12_one_vcpus_stop_stops_all_and_is_told,
        }
    };
    // The names alone.
    (@names $subject:expr; $($module:ident: $name:ident,)*) => {
        [$(stringify!($name),)*]
    };
    (@tests $subject:expr; $($module:ident: $name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                match $crate::conformance::Subject::cannot(&$subject, stringify!($name)) {
                    Some(why) => println!("cannot be: {why}"),
                    None => $crate::conformance::$module::$name(&$subject),
                }
            }
        )*
    };
}
