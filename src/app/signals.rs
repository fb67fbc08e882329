//! What signals do: some end the daemon in order, the others nothing. None ends it at once but SIGKILL, and what the
//! kernel sends for a fault of the program.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that are listened for, for as long as this lives.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    /// A terminal that closes; elsewhere often 'read your settings again', which this daemon does not do.
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    /// From now on no signal ends the process by itself.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for one that ends the daemon.
    pub(super) async fn told_to_stop(&mut self) {
        loop {
            let ignored = tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.quit.recv() => return,
                _ = self.hangup.recv() => "SIGHUP",
                _ = self.user1.recv() => "SIGUSR1",
                _ = self.user2.recv() => "SIGUSR2",
            };
            tracing::info!(signal = ignored, "a signal is ignored; settings are read at a start only");
        }
    }
}
