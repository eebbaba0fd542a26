//! dev
use backbone::*; use backbone::graph::GraphModel; use backbone::models::BuildOptions; use tch::{Kind,Tensor,Device,nn};
fn cpu()->f64{ let s=std::fs::read_to_string("/proc/self/stat").unwrap(); let v:Vec<&str>=s.rsplit(')').next().unwrap().split_whitespace().collect(); (v[11].parse::<f64>().unwrap()+v[12].parse::<f64>().unwrap())/100.0}
fn main(){ tch::set_num_threads(1); let a:Vec<String>=std::env::args().collect(); let (file,name)=(&a[1],&a[2]); let n:i64=a[3].parse().unwrap(); let bf=a.get(4).is_some_and(|x|x=="bf16");
 let which=a.get(5).cloned();
 let g=GraphModel::open(file.as_ref(),&[]).unwrap(); let s1=nn::VarStore::new(Device::Cpu); let s2=nn::VarStore::new(Device::Cpu); let o=BuildOptions::default();
 let nets:Vec<(&str,Box<dyn Backbone>)>=vec![("graph",g.build(&s1.root(),&o).unwrap()),("built",models::find(name).unwrap().build(&s2.root(),&o).unwrap())];
 let x=Tensor::randn([n,3,224,224],(Kind::Float,Device::Cpu)); let per=19; let vis:Vec<i64>=(0..n).flat_map(|i|(0..49).step_by(1).filter(move |j|(j*19)%49<19).map(move |j|i*49+j)).collect(); let _=per;
 for r in 0..4 { for (w,net) in &nets { if which.as_ref().is_some_and(|x|x!=w){continue} let mask=PatchMask::from_visible(n,(7,7),&vis,Device::Cpu).unwrap();
  let m=Mode::train().with_drop_path(DropPathDraws::Off).with_compute(if bf{Some(Kind::BFloat16)}else{None}).with_bf16_weight_grads(bf);
  let t=std::time::Instant::now(); let c=cpu(); let f=FeatureMap::patches(&x,&mask).unwrap(); let out=net.forward(&f,&m).unwrap(); let fw=cpu()-c; let l=out.iter().fold(Tensor::from(0f32),|s,o|s+o.tensor().to_kind(Kind::Float).square().mean(Kind::Float)); l.backward(); println!("{r} {w} wall {:.2} cpu {:.2} fwd {fw:.2}",t.elapsed().as_secs_f64(),cpu()-c); } }
 let s=std::fs::read_to_string("/proc/self/status").unwrap(); println!("{}",s.lines().find(|l|l.starts_with("VmHWM")).unwrap());
}
