/* The hit path in C: make the key, look into the store's index, compare, count, return the value.
 *
 * It decides nothing. Whatever is no plain hit goes to the Python function that serves such calls where this
 * was not built (the driver), with the same arguments; wrong arguments go to the compiled Python call, which
 * raises what it always raises.
 *
 * What it may touch. Of a record (`storage/entry.py`) it reads `deadline` and `value` and adds to `hits`, and
 * nothing else. `Record` stays a Python class with `__slots__`: where these three lie in it is read from the
 * class's own member descriptors when a `Core` is made, and what is not as expected is refused there. Of the
 * index, a dictionary that the store replaces as a whole, it reads one item, and keeps the dictionary alive
 * meanwhile: comparing keys may run code that has another one take its place.
 *
 * Why no hit is lost or counted twice (`Record` has the argument for Python code). A record that leaves gets
 * `deadline = -inf`, and after that its hits are added up. Both happen under the global interpreter lock, and
 * between the comparison with `deadline` and the addition to `hits` nothing here runs Python code, frees an
 * object that could, or lets go of that lock. So it is not built for interpreters without such a lock. `hits`
 * is a float: where this slot alone refers to it, it is raised in place, which nobody can see.
 *
 * The objects. A decorated function's class, made in Python (`function.py`), gets one class below it, made
 * here by `make`, whose objects have two more fields: what to call (vectorcall) and their `Core`. It has no
 * traverse, clear or dealloc of its own, but inherits the subtype functions of CPython, which see to the
 * second field as they do to any slot. `attach` fills the fields. A class for methods has in addition the flag
 * Py_TPFLAGS_METHOD_DESCRIPTOR: `account.price("x")` then calls the function with the instance in front, and
 * no bound object is made. `become` gives an object the other of its two classes, which have the same layout.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <time.h>

#ifdef Py_GIL_DISABLED
#error "needs the global interpreter lock: see above"
#endif

#define MOST 12 /* parameters; functions with more have the Python call */
#define OWNER -1 /* among the parts of a key: the instance, or what stands for it */

typedef struct {
    PyObject_HEAD
    PyObject *index;                       /* a dictionary; replaced as a whole */
    PyObject *timer;                       /* called for the time, unless `clock` */
    PyObject *names, *defaults;            /* of the parameters; a default that is this core: there is none */
    PyObject *words;                       /* the names of those that are passed by name alone, or NULL */
    PyObject *make_key;                    /* the user's `key`, or NULL: then the key is made of the parts */
    PyObject *known, *owner;               /* by id(), what stands for an instance; who makes that, or NULL */
    PyObject *driver, *cache, *run, *refuse, *call; /* what is not a hit; wrong keys; wrong arguments */
    PyTypeObject *record, *kind;           /* of all records; of those that were found to be one lately */
    Py_ssize_t deadline, hits, value;      /* where they lie in a record */
    int clock, lone, by_place, placed, all, count; /* the number of parameters, of each kind, and of parts */
    signed char parts[MOST + 1];
} Core;

/* -- the clock, the key, the record ------------------------------------------------------------------ */

#if PY_VERSION_HEX >= 0x030D0000
static inline int read_clock(double *now) {
    PyTime_t ticks;
    if (PyTime_MonotonicRaw(&ticks) < 0)
        return -1;
    *now = PyTime_AsSecondsDouble(ticks);
    return 0;
}
#elif defined(__linux__)
static inline int read_clock(double *now) { /* and rounded as CPython does */
    struct timespec spec;
    if (clock_gettime(CLOCK_MONOTONIC, &spec) != 0)
        return -1;
    int64_t ticks = (int64_t)spec.tv_sec * 1000000000 + spec.tv_nsec;
    *now = ticks % 1000000000 == 0 ? (double)(ticks / 1000000000) : (double)ticks / 1e9;
    return 0;
}
#else
static inline int read_clock(double *now) { (void)now; return -1; }
#endif

/* What `time.monotonic` runs, once `trust` has found that it tells what is read here. */
static PyCFunction monotonic = NULL;

/* The time by the function's own clock. -1: an exception is set. */
static inline int time_of(Core *core, double *now) {
    /* Asked every time: tools for tests put another clock into its place, or into the very object. */
    if (core->clock && PyCFunction_GET_FUNCTION(core->timer) == monotonic && read_clock(now) == 0)
        return 0;
    PyObject *told = PyObject_CallNoArgs(core->timer);
    if (told == NULL)
        return -1;
    *now = PyFloat_AsDouble(told);
    Py_DECREF(told);
    return *now == -1.0 && PyErr_Occurred() ? -1 : 0;
}

/* Whether it is one of the kinds of records. A function has mostly one of them, which is not asked again. */
static int is_record(Core *core, PyTypeObject *type) {
    int is_one = PyType_IsSubtype(type, core->record);
    if (is_one && core->kind == core->record)
        Py_SETREF(core->kind, (PyTypeObject *)Py_NewRef(type));
    return is_one;
}

/* The value of a fresh record, counted: 1. 0: there is none. -1: an exception is set. */
static inline int look(Core *core, PyObject *key, PyObject **value) {
    double now;
    if (time_of(core, &now) < 0)
        return -1;
    PyObject *index = Py_NewRef(core->index);
    PyObject *record = PyDict_GetItemWithError(index, key); /* borrowed */
    int found = record == NULL && PyErr_Occurred() ? -1 : 0;
    if (record != NULL && (Py_IS_TYPE(record, core->kind) || is_record(core, Py_TYPE(record)))) {
        PyObject *deadline = *(PyObject **)((char *)record + core->deadline);
        PyObject **hits = (PyObject **)((char *)record + core->hits), *before = *hits;
        PyObject *what = *(PyObject **)((char *)record + core->value);
        if (deadline != NULL && PyFloat_CheckExact(deadline) && now < PyFloat_AS_DOUBLE(deadline)
            && before != NULL && PyFloat_CheckExact(before) && what != NULL) {
            PyObject *own = Py_REFCNT(before) == 1 ? before : PyFloat_FromDouble(PyFloat_AS_DOUBLE(before));
            if ((found = own == NULL ? -1 : 1) == 1) {
                ((PyFloatObject *)own)->ob_fval += 1.0;
                if (own != before)
                    Py_SETREF(*hits, own); /* a float: this runs nothing */
                *value = Py_NewRef(what);
            }
        }
    }
    Py_DECREF(index);
    return found;
}

/* The arguments in the order of the parameters, borrowed; false where they do not fit. */
static inline int sort_out(Core *core, PyObject *const *args, Py_ssize_t count, PyObject *kwnames,
                           PyObject **given) {
    Py_ssize_t all = core->all, at = 0;
    if (count > core->placed)
        return 0;
    for (; at < count; at++)
        given[at] = args[at];
    for (; at < all; at++)
        given[at] = NULL;
    for (Py_ssize_t word = 0; kwnames != NULL && word < PyTuple_GET_SIZE(kwnames); word++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, word);
        for (at = core->by_place; at < all && PyTuple_GET_ITEM(core->names, at) != name; at++)
            ;
        if (at == all) /* another object, perhaps an equal one */
            for (at = core->by_place; at < all; at++)
                if (PyUnicode_Compare(PyTuple_GET_ITEM(core->names, at), name) == 0)
                    break;
        if (at == all || given[at] != NULL)
            return 0;
        given[at] = args[count + word];
    }
    for (at = count; at < all; at++)
        if (given[at] == NULL && (given[at] = PyTuple_GET_ITEM(core->defaults, at)) == (PyObject *)core)
            return 0;
    return 1;
}

/* What stands for the instance that is the first argument: a new reference. */
static inline PyObject *owner_of(Core *core, PyObject *instance) {
    if (core->owner == NULL)
        return Py_NewRef(instance);
    PyObject *identity = PyLong_FromVoidPtr(instance);
    if (identity == NULL)
        return NULL;
    PyObject *owner = Py_XNewRef(PyDict_GetItemWithError(core->known, identity));
    Py_DECREF(identity);
    if (owner == NULL && !PyErr_Occurred())
        owner = PyObject_CallOneArg(core->owner, instance);
    return owner;
}

/* The key of a call, a new reference. `given[-1]` is free. */
static inline PyObject *key_of(Core *core, PyObject **given) {
    if (core->make_key != NULL) {
        size_t placed = core->words == NULL ? core->all : core->placed;
        return PyObject_Vectorcall(core->make_key, given, placed | PY_VECTORCALL_ARGUMENTS_OFFSET, core->words);
    }
    if (core->lone)
        return Py_NewRef(given[(int)core->parts[0]]);
    PyObject *key = PyTuple_New(core->count);
    for (int at = 0; key != NULL && at < core->count; at++) {
        int part = core->parts[at];
        PyObject *item = part == OWNER ? owner_of(core, given[0]) : Py_NewRef(given[part]);
        if (item == NULL)
            Py_CLEAR(key);
        else
            PyTuple_SET_ITEM(key, at, item);
    }
    return key;
}

/* -- calls ------------------------------------------------------------------------------------------- */

static PyObject *tuple_of(PyObject **items, Py_ssize_t count) {
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t at = 0; tuple != NULL && at < count; at++)
        PyTuple_SET_ITEM(tuple, at, Py_NewRef(items[at]));
    return tuple;
}

/* It is no hit: the driver serves the call. */
static PyObject *drive(Core *core, PyObject *key, PyObject **given) {
    PyObject *args = tuple_of(given, core->placed), *kwargs = args == NULL ? NULL : PyDict_New();
    PyObject *served = NULL;
    for (int at = core->placed; kwargs != NULL && at < core->all; at++)
        if (PyDict_SetItem(kwargs, PyTuple_GET_ITEM(core->names, at), given[at]) < 0)
            Py_CLEAR(kwargs);
    if (kwargs != NULL) {
        PyObject *stack[] = {NULL, core->cache, core->run, key, args, kwargs};
        served = PyObject_Vectorcall(core->driver, stack + 1, 5 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    Py_XDECREF(args);
    Py_XDECREF(kwargs);
    return served;
}

/* The key cannot be hashed, or the clock raised a TypeError: `refuse` raises what says so. */
static PyObject *refuse(Core *core, PyObject *key, PyObject **given) {
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *error = PyErr_GetRaisedException();
#else
    PyObject *kind, *error, *traceback;
    PyErr_Fetch(&kind, &error, &traceback);
    PyErr_NormalizeException(&kind, &error, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(error, traceback);
    Py_XDECREF(kind);
    Py_XDECREF(traceback);
#endif
    PyObject *arguments = tuple_of(given, core->all), *raised = NULL;
    if (arguments != NULL) {
        PyObject *stack[] = {NULL, error, key, arguments};
        raised = PyObject_Vectorcall(core->refuse, stack + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    Py_XDECREF(arguments);
    Py_XDECREF(error);
    return raised;
}

static void dealloc(Core *core);
static inline Core *core_of(PyObject *function) {
    return *(Core **)((char *)function + Py_TYPE(function)->tp_vectorcall_offset + sizeof(vectorcallfunc));
}

static PyObject *call(PyObject *function, PyObject *const *args, size_t flags, PyObject *kwnames) {
    PyObject *room[MOST + 1], **given = room + 1, *value = NULL;
    Core *core = core_of(function);
    if (core == NULL || Py_TYPE(core)->tp_dealloc != (destructor)dealloc) /* the slot can be written */
        return PyErr_Format(PyExc_TypeError, "this function has lost what it calls");
    Py_INCREF(core);
    if (core->all < 0 || !sort_out(core, args, PyVectorcall_NARGS(flags), kwnames, given))
        value = PyObject_Vectorcall(core->call, args, PyVectorcall_NARGS(flags), kwnames);
    else {
        PyObject *key = key_of(core, given);
        int found = key == NULL ? 1 : look(core, key, &value);
        if (found == 0)
            value = drive(core, key, given);
        else if (found < 0 && PyErr_ExceptionMatches(PyExc_TypeError))
            value = refuse(core, key, given);
        Py_XDECREF(key);
    }
    Py_DECREF(core);
    return value;
}

/* -- Core -------------------------------------------------------------------------------------------- */

static int traverse(Core *core, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(core));
    Py_VISIT(core->index); Py_VISIT(core->timer); Py_VISIT(core->names); Py_VISIT(core->defaults);
    Py_VISIT(core->words); Py_VISIT(core->make_key); Py_VISIT(core->known); Py_VISIT(core->owner);
    Py_VISIT(core->driver); Py_VISIT(core->cache); Py_VISIT(core->run); Py_VISIT(core->refuse);
    Py_VISIT(core->call); Py_VISIT(core->record); Py_VISIT(core->kind);
    return 0;
}

static int clear(Core *core) { /* `index`, `timer` and `record` lead to no core: what is left can still look */
    Py_CLEAR(core->names); Py_CLEAR(core->defaults); Py_CLEAR(core->words); Py_CLEAR(core->make_key);
    Py_CLEAR(core->known); Py_CLEAR(core->owner); Py_CLEAR(core->driver); Py_CLEAR(core->cache);
    Py_CLEAR(core->run); Py_CLEAR(core->refuse);
    core->all = -1;
    return 0;
}

static void dealloc(Core *core) {
    PyTypeObject *type = Py_TYPE(core);
    PyObject_GC_UnTrack(core);
    clear(core);
    Py_CLEAR(core->call); Py_CLEAR(core->index); Py_CLEAR(core->timer); Py_CLEAR(core->record); Py_CLEAR(core->kind);
    type->tp_free((PyObject *)core);
    Py_DECREF(type);
}

/* Where a slot lies in the objects of a class that Python made; -1: it is no such slot. */
static Py_ssize_t place_of(PyTypeObject *record, const char *name) {
    PyObject *found = PyObject_GetAttrString((PyObject *)record, name);
    Py_ssize_t place = -1;
    if (found != NULL && Py_IS_TYPE(found, &PyMemberDescr_Type)) {
        PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
        if (member->type == T_OBJECT_EX)
            place = member->offset;
    }
    if (found != NULL && place < 0)
        PyErr_Format(PyExc_TypeError, "%s is no slot of %R", name, record);
    Py_XDECREF(found);
    return place;
}

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"record", "index", "timer", "call", NULL};
    PyTypeObject *record;
    PyObject *index, *timer, *call;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!OO:Core", keywords, &PyType_Type, &record, &PyDict_Type,
                                     &index, &timer, &call))
        return NULL;
    Core *core = (Core *)type->tp_alloc(type, 0);
    if (core == NULL)
        return NULL;
    core->record = (PyTypeObject *)Py_NewRef(record), core->kind = (PyTypeObject *)Py_NewRef(record);
    core->index = Py_NewRef(index);
    core->timer = Py_NewRef(timer);
    core->call = Py_NewRef(call);
    core->clock = PyCFunction_CheckExact(timer);
    core->all = -1; /* until `shape` */
    if ((core->deadline = place_of(record, "deadline")) < 0 || (core->hits = place_of(record, "hits")) < 0
        || (core->value = place_of(record, "value")) < 0)
        Py_CLEAR(core);
    return (PyObject *)core;
}

PyDoc_STRVAR(shape_doc, "Say how calls are read: names, defaults (this core: none), how many parameters are given by "
             "place alone and by place at all, parts of the key (-1: the instance), whether that is the one part, "
             "the user's key (or None), known and owner of instances (or None), and what is called: driver, cache, "
             "run, refuse. Once: a call that is under way reads this.");
static PyObject *shape(Core *core, PyObject *args) {
    PyObject *names, *defaults, *parts, *key, *known, *owner, *driver, *cache, *run, *refuse;
    int by_place, placed, lone;
    if (!PyArg_ParseTuple(args, "O!O!iiO!pOO!OOOOO:shape", &PyTuple_Type, &names, &PyTuple_Type, &defaults, &by_place,
                          &placed, &PyTuple_Type, &parts, &lone, &key, &PyDict_Type, &known, &owner, &driver, &cache,
                          &run, &refuse))
        return NULL;
    Py_ssize_t all = PyTuple_GET_SIZE(names), count = PyTuple_GET_SIZE(parts);
    int fits = core->names == NULL && all <= MOST && PyTuple_GET_SIZE(defaults) == all && count <= MOST + 1
               && 0 <= by_place && by_place <= placed && placed <= all && (!lone || count == 1);
    for (Py_ssize_t at = 0; fits && at < count; at++) {
        long part = PyLong_AsLong(PyTuple_GET_ITEM(parts, at));
        fits = (lone ? 0 : OWNER) <= part && part < all && !(part == OWNER && all == 0);
        core->parts[at] = (signed char)part;
    }
    for (Py_ssize_t at = 0; fits && at < all; at++)
        fits = PyUnicode_Check(PyTuple_GET_ITEM(names, at));
    if (!fits) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "not the shape of a call");
        return NULL;
    }
    if (placed < all && (core->words = PyTuple_GetSlice(names, placed, all)) == NULL)
        return NULL;
    core->names = Py_NewRef(names);
    core->defaults = Py_NewRef(defaults);
    core->make_key = key == Py_None ? NULL : Py_NewRef(key);
    core->known = Py_NewRef(known);
    core->owner = owner == Py_None ? NULL : Py_NewRef(owner);
    core->driver = Py_NewRef(driver);
    core->cache = Py_NewRef(cache);
    core->run = Py_NewRef(run);
    core->refuse = Py_NewRef(refuse);
    core->by_place = by_place;
    core->placed = placed;
    core->lone = lone;
    core->count = (int)count;
    core->all = (int)all;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(find_doc, "Return the fresh value of a key, counted as a hit, or the class of this core: there is none.");
static PyObject *find(Core *core, PyObject *key) {
    PyObject *value = NULL;
    return look(core, key, &value) == 0 ? Py_NewRef(Py_TYPE(core)) : value;
}

PyDoc_STRVAR(look_in_doc, "Look into this dictionary from now on.");
static PyObject *look_in(Core *core, PyObject *index) {
    if (!PyDict_CheckExact(index))
        return PyErr_Format(PyExc_TypeError, "expected a dictionary, got %R", Py_TYPE(index));
    Py_SETREF(core->index, Py_NewRef(index));
    Py_RETURN_NONE;
}

static PyMethodDef core_methods[] = {{"shape", (PyCFunction)shape, METH_VARARGS, shape_doc},
                                     {"find", (PyCFunction)find, METH_O, find_doc},
                                     {"look_in", (PyCFunction)look_in, METH_O, look_in_doc},
                                     {NULL}};
static PyMemberDef core_members[] = {{"index", T_OBJECT, offsetof(Core, index), READONLY, "where it looks"}, {NULL}};
static PyType_Slot core_slots[] = {{Py_tp_new, core_new},           {Py_tp_dealloc, dealloc},
                                   {Py_tp_traverse, traverse},      {Py_tp_clear, clear},
                                   {Py_tp_methods, core_methods},   {Py_tp_members, core_members},
                                   {Py_tp_doc, "What the calls of one decorated function need."}, {0, NULL}};
static PyType_Spec core_spec = {"singleflight.decorator._hits.Core", sizeof(Core), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, core_slots};

/* -- the classes of decorated functions -------------------------------------------------------------- */

PyDoc_STRVAR(make_doc, "Return a class below this one whose objects are called in C, as methods or not.");
static PyObject *make(PyObject *module, PyObject *args) {
    PyTypeObject *base;
    int method;
    if (!PyArg_ParseTuple(args, "O!p:make", &PyType_Type, &base, &method))
        return NULL;
    Py_ssize_t end = base->tp_basicsize;
    PyMemberDef members[] = {{"__vectorcalloffset__", T_PYSSIZET, end, READONLY},
                             {"_self_core", T_OBJECT_EX, end + (Py_ssize_t)sizeof(vectorcallfunc), 0},
                             {NULL}};
    PyType_Slot slots[] = {{Py_tp_call, PyVectorcall_Call}, {Py_tp_members, members}, {0, NULL}};
    PyType_Spec spec = {"singleflight.decorator.function.SingleFlightFunction",
                        (int)end + (int)(sizeof(vectorcallfunc) + sizeof(PyObject *)), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_VECTORCALL, slots};
    PyObject *made = PyType_FromSpecWithBases(&spec, (PyObject *)base);
    if (made != NULL && method) /* now that it has inherited a `__get__`, without which it may not have this */
        ((PyTypeObject *)made)->tp_flags |= Py_TPFLAGS_METHOD_DESCRIPTOR;
    return made;
}

static int is_made_here(PyObject *type) {
    return PyType_Check(type) && ((PyTypeObject *)type)->tp_call == PyVectorcall_Call
           && PyObject_HasAttrString(type, "_self_core");
}

PyDoc_STRVAR(show_doc, "Have a class that `make` made show something under a name; calls go on as they did.");
static PyObject *show(PyObject *module, PyObject *args) {
    PyObject *type, *name, *shown;
    if (!PyArg_ParseTuple(args, "O!UO:show", &PyType_Type, &type, &name, &shown))
        return NULL;
    /* Not by setting the attribute: CPython would call a `__call__` in place of what is here. */
    if (!is_made_here(type))
        return PyErr_Format(PyExc_TypeError, "%R was not made here", type);
    if (PyDict_SetItem(((PyTypeObject *)type)->tp_dict, name, shown) < 0)
        return NULL;
    PyType_Modified((PyTypeObject *)type);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(attach_doc, "Give a function, whose class `make` made, its core.");
static PyObject *attach(PyObject *module, PyObject *args) {
    PyObject *function, *core;
    if (!PyArg_ParseTuple(args, "OO:attach", &function, &core))
        return NULL;
    if (!is_made_here((PyObject *)Py_TYPE(function)) || Py_TYPE(core)->tp_dealloc != (destructor)dealloc)
        return PyErr_Format(PyExc_TypeError, "expected a function and its core, got %R and %R", Py_TYPE(function),
                            Py_TYPE(core));
    char *end = (char *)function + Py_TYPE(function)->tp_vectorcall_offset;
    *(vectorcallfunc *)end = call;
    Py_XSETREF(*(PyObject **)(end + sizeof(vectorcallfunc)), Py_NewRef(core));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(become_doc, "Give a function the other of the two classes that `make` made for it.");
static PyObject *become(PyObject *module, PyObject *args) {
    PyObject *function, *type;
    if (!PyArg_ParseTuple(args, "OO!:become", &function, &PyType_Type, &type))
        return NULL;
    PyTypeObject *before = Py_TYPE(function);
    if (!is_made_here((PyObject *)before) || !is_made_here(type) || before->tp_base != ((PyTypeObject *)type)->tp_base)
        return PyErr_Format(PyExc_TypeError, "%R and %R were not made for the same function", before, type);
    Py_SET_TYPE(function, (PyTypeObject *)Py_NewRef(type));
    Py_DECREF(before);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(trust_doc, "Read this clock without calling it from now on, if it tells what is read here.");
static PyObject *trust(PyObject *module, PyObject *timer) {
    double before = 0, after = 0;
    int can = PyCFunction_CheckExact(timer) && read_clock(&before) == 0;
    PyObject *told = PyObject_CallNoArgs(timer);
    if (told == NULL)
        return NULL;
    can = can && PyFloat_CheckExact(told) && read_clock(&after) == 0;
    if (can && before <= PyFloat_AS_DOUBLE(told) && PyFloat_AS_DOUBLE(told) <= after)
        monotonic = PyCFunction_GET_FUNCTION(timer);
    Py_DECREF(told);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"make", make, METH_VARARGS, make_doc},
                                {"show", show, METH_VARARGS, show_doc},
                                {"attach", attach, METH_VARARGS, attach_doc},
                                {"become", become, METH_VARARGS, become_doc},
                                {"trust", trust, METH_O, trust_doc},
                                {NULL}};

static int fill(PyObject *module) {
    PyObject *core = PyType_FromModuleAndSpec(module, &core_spec, NULL);
    int filled = core == NULL ? -1 : PyModule_AddObjectRef(module, "Core", core);
    Py_XDECREF(core);
    return filled < 0 ? -1 : PyModule_AddIntConstant(module, "MOST", MOST);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, fill}, {0, NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_hits", "The hit path in C.", 0, methods, module_slots};

PyMODINIT_FUNC PyInit__hits(void) { return PyModuleDef_Init(&definition); }
