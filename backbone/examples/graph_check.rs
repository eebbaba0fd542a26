//! dev
use backbone::*;
use backbone::graph::GraphModel;
use backbone::models::BuildOptions;
use std::collections::BTreeMap;
use tch::{Kind, Tensor, Device, nn};
fn err(a:&Tensor,b:&Tensor)->f64{ if a.size()!=b.size() {return f64::INFINITY} let d=(a-b).abs().max().double_value(&[]); d/(b.abs().max().double_value(&[])+1e-12)}
fn check(dir:&str,name:&str)->anyhow_::R{
    let model=GraphModel::open(format!("{dir}/{name}.pt2").as_ref(),&[]).map_err(|e|e.to_string())?;
    if std::env::var("SHOW").is_ok(){println!("{}",model.describe());}
    let reff: BTreeMap<String,Tensor>=Tensor::read_safetensors(format!("{dir}/{name}.safetensors")).map_err(|e|e.to_string())?.into_iter().collect();
    let x=&reff["input"];
    let mut store=nn::VarStore::new(Device::Cpu);
    let net=model.build(&store.root(),&BuildOptions{in_chans:x.size()[1],..Default::default()}).map_err(|e|e.to_string())?;
    store.double();
    let vars: BTreeMap<String,Tensor>=store.variables().into_iter().collect();
    model.load(&vars).map_err(|e|e.to_string())?;
    let mode=||Mode::train().with_drop_path(DropPathDraws::Off);
    let mut out=String::new();
    let run=|fm:&FeatureMap|->std::result::Result<Vec<Tensor>,String>{ Ok(net.forward(fm,&mode()).map_err(|e|e.to_string())?.iter().map(|m|m.to_grid()).collect())};
    let loss=|outs:&[Tensor]|->Tensor{ let mut s=Tensor::from(0.0f64); for o in outs { let w=Tensor::arange(o.numel() as i64,(Kind::Double,Device::Cpu)).cos().view(&o.size()[..]); s=s+(o*w).sum(Kind::Double);} s};
    let grads=|prefix:&str,outs:&[Tensor]|->(f64,usize,String){
        for (_,v) in &vars { let mut v=v.shallow_clone(); v.zero_grad(); }
        loss(outs).backward();
        let (mut worst,mut n,mut at)=(0f64,0,String::new());
        let biggest=reff.iter().filter(|(k,_)|k.starts_with(prefix)).map(|(_,t)|t.abs().max().double_value(&[])).fold(0f64,f64::max);
        for (k,v) in &vars { if !v.requires_grad(){continue}
            match reff.get(&format!("{prefix}{k}")) { Some(g)=>{ n+=1; let own=v.grad(); let own=if own.defined(){own}else{v.zeros_like()}; let step=(own.numel() as i64+16383)/16384; let own=own.flatten(0,-1).slice(0,None,None,step.max(1)); let g=&g.flatten(0,-1); let own=if own.defined(){own}else{g.zeros_like()}; let e=(&own-g).abs().max().double_value(&[])/(g.abs().max().double_value(&[]).max(1e-3*biggest)); if e>worst||e.is_nan(){worst=e;at=k.clone();} }, None=>{} } }
        (worst,n,at)
    };
    let outs=run(&FeatureMap::Grid(x.shallow_clone()))?;
    let wanted=(0..).take_while(|i|reff.contains_key(&format!("grid.{i}"))).count();
    // match stages by shape
    let pairs=|p:&str,outs:&[Tensor]|->f64{ let w:Vec<&Tensor>=(0..wanted).filter_map(|i|reff.get(&format!("{p}.{i}"))).collect(); let w=&w[w.len().saturating_sub(outs.len())..]; if w.len()!=outs.len(){return f64::INFINITY} outs.iter().zip(w).map(|(a,b)|err(a,b)).fold(0f64,f64::max)};
    let g=pairs("grid",&outs); let all=outs.len()==wanted;
    out+=&format!("stages {}/{wanted} grid {g:.1e}",outs.len());
    if all && reff.keys().any(|k|k.starts_with("gridgrad.")) { let (e,n,at)=grads("gridgrad.",&outs); out+=&format!(" grad {e:.1e} of {n} {}",if e>1e-9{at}else{String::new()}); }
    if let Some(r)=model.refusal(){ out+=&format!(" REFUSED {}",r); return Ok(out)}
    if let Some(active)=reff.get("active"){
        let mask=PatchMask::from_active(&if active.dim()==3{active.unsqueeze(1)}else{active.shallow_clone()}.to_kind(Kind::Bool)).map_err(|e|e.to_string())?;
        let full=PatchMask::all_visible(x.size()[0],mask.patches(),Device::Cpu).map_err(|e|e.to_string())?;
        let o=run(&FeatureMap::patches(x,&full).unwrap())?; out+=&format!(" | all visible {:.1e}",pairs("grid",&o));
        let o=run(&FeatureMap::patches(x,&mask).map_err(|e|e.to_string())?)?; out+=&format!(" packed {:.1e}",pairs("masked",&o));
        if all { let (e,n,at)=grads("grad.",&o); out+=&format!(" grad {e:.1e} of {n} {}",if e>1e-9{at}else{String::new()}); }
        let o=run(&FeatureMap::masked(x,&mask).map_err(|e|e.to_string())?)?; out+=&format!(" masked {:.1e}",pairs("masked",&o));
    }
    Ok(out)
}
mod anyhow_{pub type R=std::result::Result<String,String>;}
fn main(){ tch::set_num_threads(1); let a:Vec<String>=std::env::args().collect(); for n in &a[2..]{ let t=std::time::Instant::now(); match std::panic::catch_unwind(||check(&a[1],n)){ Ok(Ok(s))=>println!("{n:28} {s}  {:.1?}",t.elapsed()), Ok(Err(e))=>println!("{n:28} ERROR {e}"), Err(_)=>println!("{n:28} PANIC") } } }
