pub mod extract;
pub mod pages;
