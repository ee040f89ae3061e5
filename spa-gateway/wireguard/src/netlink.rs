//! One netlink socket.
