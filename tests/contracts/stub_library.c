/* All that the real bindings ask of TensorRT's libraries when they are loaded. */
#define STUB(name) void *name(void) { return 0; }
STUB(createInferBuilder_INTERNAL)
STUB(createInferRefitter_INTERNAL)
STUB(createInferRuntime_INTERNAL)
STUB(createNvOnnxParser_INTERNAL)
STUB(createNvOnnxParserRefitter_INTERNAL)
STUB(getBuilderPluginRegistry)
STUB(getNvOnnxParserVersion)
STUB(getPluginRegistry)
STUB(initLibNvInferPlugins)
