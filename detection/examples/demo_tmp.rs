fn main() {
    let a: Vec<String> = std::env::args().collect();
    let mut o = detection::demo::DemoOptions::default();
    o.train = a[3].parse().unwrap();
    o.val = a[4].parse().unwrap();
    let t = std::time::Instant::now();
    println!("{:?}", detection::demo::make(a[1].as_ref(), a[2].as_ref(), &o).unwrap());
    println!("{:?}", t.elapsed());
    let json = std::path::Path::new(&a[2]).join("annotations/instances_train.json");
    let o = detection::data::CheckOptions { read_images: true, threads: 2 };
    println!("{}", detection::data::check(&json, None, &o).unwrap());
}
