//! The keys that the terminal keeps for itself: Ctrl-A and one more.

const CTRL_A: u8 = 1;

/// What a person at the terminal asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the machine.
    Quit,
    /// Show the keys.
    Help,
    /// Pause, or go on.
    Pause,
    /// Send a break.
    Break,
    /// Press the machine's power key.
    PowerKey,
}

/// Finds the keys in what is typed.
#[derive(Debug, Default)]
pub struct Escape {
    armed: bool,
}

impl Escape {
    /// Splits `typed` into what the guest gets and what is asked for, in order: each action stands for the
    /// place in the guest's bytes after which it was typed.
    pub fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, Vec<(usize, Action)>) {
        let mut guest = Vec::with_capacity(typed.len());
        let mut actions = Vec::new();
        for &byte in typed {
            if !std::mem::take(&mut self.armed) {
                match byte {
                    CTRL_A => self.armed = true,
                    _ => guest.push(byte),
                }
                continue;
            }
            let action = match byte {
                b'x' | b'X' => Action::Quit,
                b'h' | b'H' | b'?' => Action::Help,
                b'p' | b'P' => Action::Pause,
                b'b' | b'B' => Action::Break,
                b's' | b'S' => Action::PowerKey,
                CTRL_A => {
                    guest.push(CTRL_A);
                    continue;
                }
                _ => Action::Help,
            };
            actions.push((guest.len(), action));
        }
        (guest, actions)
    }
}

/// What Ctrl-A h shows.
pub const HELP: &str = "\r\n\
  Ctrl-A x   quit              Ctrl-A p        pause, and go on\r\n\
  Ctrl-A h   show the keys     Ctrl-A Ctrl-A   send one Ctrl-A\r\n\
  Ctrl-A b   send a break      Ctrl-A s        press the machine's power key\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_also_across_reads() {
        let mut e = Escape::default();
        assert_eq!(e.feed(b"ab\x01"), (b"ab".to_vec(), vec![]));
        assert_eq!(e.feed(b"xcd"), (b"cd".to_vec(), vec![(0, Action::Quit)]));
        assert_eq!(e.feed(b"\x01\x01x\x01h"), (b"\x01x".to_vec(), vec![(2, Action::Help)]));
    }
}
