//! A page in the browser that shows what a model does with a picture: the server that all programs'
//! playgrounds share.
//!
//! A program gives a [`Page`] and an [`App`]. [`serve`] answers browsers on a thread of its own and
//! hands their questions, one at a time, to the app on the calling thread, where the model is: a
//! browser that reads slowly, or ten at once, keep nobody from being answered. What the page may
//! load comes from this server alone, and no file is served but the pictures that were named.

mod app;
mod encode;
mod guard;
mod page;
mod pictures;
mod queue;
mod serve;

pub use app::{App, Bits, Question};
pub use encode::{data_url, jpeg};
pub use page::Page;
pub use pictures::{Limits, Picture, Pictures};
pub use serve::{ServeFlags, Server, serve};
