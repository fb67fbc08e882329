//! A loopback port that stays the test's own while nobody listens on it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// A port that refuses connections until somebody (the daemon, a [`super::gateway::Gateway`]) listens on it, and again
/// when that is gone. A number that was merely free a moment ago could be another test's by then.
pub struct Port {
    address: SocketAddr,
    /// Bound, never listening: the kernel gives the port to nobody by chance.
    _held: Socket,
}

impl Port {
    pub fn reserve() -> Self {
        let held = reusable(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let address = held.local_addr().expect("bound").as_socket().expect("an address");
        Self { address, _held: held }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens; connections are refused again when the listener is dropped.
    pub fn listen(&self) -> TcpListener {
        let socket = reusable(self.address);
        socket.listen(128).expect("nobody else listens");
        socket.into()
    }
}

fn reusable(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("reusable");
    socket.bind(&address.into()).expect("bound");
    socket
}
