//! What is done to the machine for somebody outside: by the vCPUs' thread where time is made of instructions.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use armlet_devices::{OutputQueue, Pl011, Pl061};

use super::{Applied, Apply, Outcome};
use crate::console::InputQueue;
use crate::notice::{Notice, Notices, Request};
use crate::recording::Input;

/// The parts of the machine that inputs go to.
pub(crate) struct Hands {
    pub(crate) uart: Arc<Pl011>,
    pub(crate) gpio: Arc<Pl061>,
    pub(crate) input: Arc<InputQueue>,
    pub(crate) output: Arc<OutputQueue>,
    pub(crate) notices: Arc<Notices>,
    pub(crate) requests: Sender<Request>,
}

impl Apply for Hands {
    fn apply(&self, input: &Input) -> Applied {
        match input {
            Input::Console(bytes) if self.input.inject(bytes) => {}
            Input::Console(_) => return Applied::Impossible,
            Input::PowerKey => {
                self.notices.tell(&Notice::PowerKey);
                self.gpio.press_power_button();
            }
            Input::Break => self.uart.receive_break(),
            Input::Hold => self.uart.hold_input_for_driver(),
            Input::Reset(cause) => {
                // Nobody listens any more while the machine is taken down.
                let _ = self.requests.send(Request::Reset(*cause));
                return Applied::Awaits;
            }
        }
        Applied::Done
    }

    fn pause(&self) {
        let _ = self.requests.send(Request::Pause);
    }

    fn mute(&self, muted: bool) {
        self.output.mute(muted);
    }

    fn over(&self, outcome: Outcome) {
        let _ = self.requests.send(Request::Over(outcome));
    }
}
