//! What tests put around functions.

use std::sync::{Arc, Mutex};

use armlet_devices::{Message, MessageSender, MessageSink};

/// Keeps the messages that come.
#[derive(Default)]
pub struct Post(Arc<Mutex<(Vec<Message>, usize)>>);

impl Post {
    /// What has come since the last time.
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut self.0.lock().unwrap().0)
    }

    /// How many senders were made.
    pub fn made(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

struct Sender(Arc<Mutex<(Vec<Message>, usize)>>, Message);

impl MessageSender for Sender {
    fn send(&self) {
        self.0.lock().unwrap().0.push(self.1);
    }
}

impl MessageSink for Post {
    fn send(&self, message: Message) {
        self.0.lock().unwrap().0.push(message);
    }

    fn sender(&self, message: Message) -> Box<dyn MessageSender> {
        self.0.lock().unwrap().1 += 1;
        Box::new(Sender(Arc::clone(&self.0), message))
    }
}
