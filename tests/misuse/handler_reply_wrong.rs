//! A handler that replies with another type than the service declares.
use onceloop::{Builder, Client, Registry};

onceloop::service! {
    pub mod calc {
        fn add(a: i32, b: i32) -> i32;
        fn length(text: &str) -> u64;
    }
}

fn _serve() -> Builder<()> {
    Builder::new()
        .method(calc::add, |(a, b), _| Ok(a + b))
        .method(calc::length, |(text,), _| Ok(text.to_owned()))
}

fn _call(client: Client<()>, registry: &mut Registry<()>) {
    client.call(registry, calc::add, (1, 2), |reply, _| assert_eq!(reply, Ok(3)));
}

fn main() {}
