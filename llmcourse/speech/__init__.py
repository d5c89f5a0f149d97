"""Speech: waves, features, alignment without frames being labelled (CTC), and waves from features."""
