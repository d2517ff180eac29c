//! The packets of gdb's remote protocol: framing, checksums, acknowledgements.
//!
//! What arrives may be anything: garbage between packets is dropped, a packet that is cut off by the start of another
//! is forgotten, and one that is too long is skipped as it comes, never stored.

/// The longest body of a packet that is taken, bytes: what the client is told as PacketSize.
pub(crate) const MAX_BODY: usize = 16 << 10;

const INTERRUPT: u8 = 0x03;

/// Something that has arrived whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// A packet's body, as it came: escapes are not resolved.
    Packet(Vec<u8>),
    /// A packet that is longer than [`MAX_BODY`].
    TooLong,
    /// Ctrl-C.
    Interrupt,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Body,
    /// In a body that is too long.
    Skipping,
    /// The first, or the second digit of the checksum follows.
    Checksum(usize),
}

/// One end of a connection.
pub(crate) struct Link {
    state: State,
    body: Vec<u8>,
    too_long: bool,
    digits: [u8; 2],
    /// Acknowledgements are sent and expected.
    acks: bool,
    /// What was sent last, in case it has to be sent again.
    last: Vec<u8>,
    out: Vec<u8>,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Between,
            body: Vec::new(),
            too_long: false,
            digits: [0; 2],
            acks: true,
            last: Vec::new(),
            out: Vec::new(),
        }
    }

    /// No acknowledgements from now on.
    pub(crate) fn stop_acks(&mut self) {
        self.acks = false;
    }

    /// Takes a byte from the client.
    pub(crate) fn push(&mut self, byte: u8) -> Option<Input> {
        match (self.state, byte) {
            (State::Between, b'$') => self.begin(),
            (State::Between, b'-') if self.acks => self.out.extend_from_slice(&self.last),
            (State::Between, INTERRUPT) => return Some(Input::Interrupt),
            (State::Between, _) => {}
            // Never part of a body without being escaped: the packet before was cut off.
            (State::Body | State::Skipping, b'$') => self.begin(),
            (State::Body | State::Skipping, b'#') => self.state = State::Checksum(0),
            (State::Body, _) if self.body.len() >= MAX_BODY => {
                self.body = Vec::new();
                self.too_long = true;
                self.state = State::Skipping;
            }
            (State::Body, _) => self.body.push(byte),
            (State::Skipping, _) => {}
            (State::Checksum(0), _) => {
                self.digits[0] = byte;
                self.state = State::Checksum(1);
            }
            (State::Checksum(_), _) => {
                self.digits[1] = byte;
                self.state = State::Between;
                return self.end();
            }
        }
        None
    }

    fn begin(&mut self) {
        self.body.clear();
        self.too_long = false;
        self.state = State::Body;
    }

    fn end(&mut self) -> Option<Input> {
        let body = std::mem::take(&mut self.body);
        let sent = std::str::from_utf8(&self.digits).ok().and_then(|d| u8::from_str_radix(d, 16).ok());
        let good = self.too_long || sent == Some(checksum(&body));
        if self.acks {
            self.out.push(if good { b'+' } else { b'-' });
        }
        match (self.too_long, good || !self.acks) {
            (true, _) => Some(Input::TooLong),
            // Without acknowledgements, nobody would send it again.
            (false, true) => Some(Input::Packet(body)),
            (false, false) => None,
        }
    }

    /// Sends what is framed already.
    pub(crate) fn send_framed(&mut self, packets: Vec<u8>) {
        if packets.is_empty() {
            return;
        }
        self.out.extend_from_slice(&packets);
        if self.acks {
            self.last = packets;
        }
    }

    /// Sends a body.
    pub(crate) fn send(&mut self, body: &[u8]) {
        self.send_framed(framed(body));
    }

    /// What is to go to the client now.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }
}

/// `body`, which needs no escapes, as a packet.
pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(body.len() + 4);
    packet.push(b'$');
    packet.extend_from_slice(body);
    packet.extend_from_slice(format!("#{:02x}", checksum(body)).as_bytes());
    packet
}

fn checksum(body: &[u8]) -> u8 {
    body.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(link: &mut Link, bytes: &[u8]) -> Vec<Input> {
        bytes.iter().filter_map(|b| link.push(*b)).collect()
    }

    fn packet(body: &str) -> Input {
        Input::Packet(body.into())
    }

    #[test]
    fn packets_are_taken_and_acknowledged() {
        let mut link = Link::new();
        assert_eq!(feed(&mut link, b"+$g#67\x03$#00"), [packet("g"), Input::Interrupt, packet("")]);
        assert_eq!(link.take_output(), b"++");
        assert_eq!(feed(&mut link, b"$g#68$x#XX$g#6$m1#9e"), []);
        assert_eq!(link.take_output(), b"---", "'6$' are two digits, wrong ones; then garbage");
        assert_eq!(feed(&mut link, b"$m1$g#67"), [packet("g")], "a packet that was cut off");
        link.take_output();
        link.send(b"OK");
        assert_eq!(feed(&mut link, b"--+"), []);
        assert_eq!(link.take_output(), b"$OK#9a$OK#9a$OK#9a");
        link.stop_acks();
        assert_eq!(feed(&mut link, b"-$g#00"), [packet("g")]);
        assert_eq!(link.take_output(), b"");
    }

    #[test]
    fn what_is_too_long_is_skipped_without_being_kept() {
        let mut link = Link::new();
        let long = [b"$", &[b'a'; MAX_BODY][..], b"#"].concat();
        let sum = format!("{:02x}", checksum(&[b'a'; MAX_BODY]));
        assert_eq!(feed(&mut link, &[&long, sum.as_bytes()].concat()).len(), 1);
        let flood = [b"$", &vec![b'a'; 50 * MAX_BODY][..]].concat();
        assert_eq!(feed(&mut link, &flood), []);
        assert!(link.body.capacity() <= MAX_BODY);
        assert_eq!(feed(&mut link, b"#12$g#67"), [Input::TooLong, packet("g")]);
        assert_eq!(feed(&mut link, &[&flood[..], b"$g#67"].concat()), [packet("g")]);
    }
}
